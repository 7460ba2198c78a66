// Drivers and devices coming together: drivers/base/dd.c, drivers/pci/pci-driver.c, and of VFIO what shows
// outside.
#include <cerrno>
#include <thread>

#include "kernel.h"

namespace simhost {

namespace {

// include/linux/errno.h; a bind passes it on as EAGAIN.
constexpr int kProbeDefer = 517;

}  // namespace

// pci_match_device: an override shuts out every other driver, and lets its own in whatever the ids say.
bool Kernel::matches(const Driver& r, const Device& d) const {
  if (d.override) return *d.override == r.name;
  if (r.dynamic_ids.count(d.ids()) > 0) return true;
  return !r.vfio && r.ids.count(d.ids()) > 0;
}

// 0, or what really_probe comes to. The driver link is there while probe() runs, and goes away when it fails.
int Kernel::probe(Lock& lock, Device* d, Driver* r) {
  // pci_dma_configure: a group that user space owns is closed to host drivers.
  if (!provides_vfio(*r, *d) && !r->managed_dma && d->group != nullptr && d->group->opened > 0) return EBUSY;
  d->driver = r;
  show_driver(d, r);
  sleep_ms(lock, r->probe_ms);
  const int error = d->gone ? ENODEV : probe_result(*d, r);
  if (error == 0) {
    if (provides_vfio(*r, *d)) show_vfio(d);
    deferred_.erase(d);
    retry_deferred();
    return 0;
  }
  if (!d->gone) hide_driver(d);
  d->driver = nullptr;
  if (error == kProbeDefer) deferred_.insert(d);
  return error;
}

int Kernel::probe_result(const Device& d, Driver* r) {
  // pci_device_can_probe
  if (d.physfn != nullptr && !d.physfn->autoprobe_vfs && !d.override) return ENODEV;
  if (r->defer > 0) {
    --r->defer;
    return kProbeDefer;
  }
  if (r->probe_errno != 0) return r->probe_errno;
  if (!r->vfio) return 0;
  // vfio_pci_core_register_device: bridges, PFs with VFs; vfio_register_group_dev: no IOMMU.
  if (d.is_bridge()) return EINVAL;
  if (d.num_vfs > 0) return EBUSY;
  if (d.group == nullptr) return EINVAL;
  return 0;
}

// __device_attach: every driver that matches, until one takes the device; failures are nobody's business.
void Kernel::attach_any(Lock& lock, Device* d) {
  if (d->driver != nullptr) return;
  for (auto& r : drivers_) {
    if (r.folder == nullptr || !matches(r, *d)) continue;
    if (probe(lock, d, &r) == 0 || d->gone) return;
  }
}

// driver_deferred_probe_trigger: whoever waited is tried again, by a worker of the kernel's own.
void Kernel::retry_deferred() {
  if (deferred_.empty()) return;
  std::thread([this] {
    Lock lock(mutex);
    for (Device* d : std::set<Device*>(deferred_)) {
      deferred_.erase(d);
      if (stopping_ || !lock_device(lock, d)) continue;
      attach_any(lock, d);
      unlock_device(d);
    }
  }).detach();
}

// __device_release_driver: the links go first, then remove() runs, for as long as it likes.
void Kernel::release_driver(Lock& lock, Device* d) {
  Driver* r = d->driver;
  if (r == nullptr) return;
  hide_driver(d);
  if (provides_vfio(*r, *d)) {
    // vfio_unregister_group_dev: the cdev goes, then whoever has the device open is waited for, for ever.
    hide_vfio(d);
    Group* group = d->group;
    const std::string what = "remove of " + d->address + " by " + r->name;
    if (group != nullptr && group->opened > 0) {
      hung_.push_back(what);
      changed_.wait(lock, [this, d, group] { return stopping_ || d->gone || group->opened == 0; });
      std::erase(hung_, what);
    }
  }
  if (r->remove_hang) hang(lock, "remove of " + d->address + " by " + r->name);
  sleep_ms(lock, r->remove_ms);
  // Their driver_remove calls pci_disable_sriov.
  if (r->sriov) remove_vfs(lock, d);
  d->driver = nullptr;
  // The group's node goes with the group's last VFIO device, after the wait.
  hide_vfio(d);
}

void Kernel::show_driver(Device* d, Driver* r) {
  tree.link_to(d->folder, "driver", r->folder);
  tree.link_to(r->folder, d->address, d->folder);
  if (!r->vfio) show_net(d);
}

void Kernel::hide_driver(Device* d) {
  hide_net(d);
  tree.remove(tree.find(path_of(d->folder) + "/driver"));
  if (d->driver != nullptr)
    tree.remove(tree.find("sys/bus/pci/drivers/" + d->driver->name + "/" + d->address));
}

void Kernel::show_vfio(Device* d) {
  const std::string name = "vfio" + std::to_string(next_vfio_++);
  Node* own = tree.child(d->folder, "vfio-dev", Kind::kFolder, 0755);
  Node* cdev = tree.child(own, name, Kind::kFolder, 0755);
  tree.attribute(cdev, "dev", 0444)->show = [](Lock&, std::string& out) {
    out = "511:0\n";
    return 0;
  };
  if (cdev_) tree.child(tree.folder("dev/vfio/devices"), name, Kind::kFile, 0600);
  show_vgpu(d);
  if (d->group == nullptr) return;
  Node* folder = tree.folder("dev/vfio");
  const std::string number = std::to_string(d->group->id);
  if (folder->children.count(number) > 0) return;
  Node* node = tree.child(folder, number, Kind::kFile, 0600);
  node->plain = false;
  node->vfio_group = d->group->id;
}

// Called twice: before remove(), and when the driver has let go.
void Kernel::hide_vfio(Device* d) {
  hide_vgpu(d);
  if (Node* own = tree.find(path_of(d->folder) + "/vfio-dev")) {
    for (const auto& [name, cdev] : own->children) tree.remove(tree.find("dev/vfio/devices/" + name));
    tree.remove(own);
  }
  if (d->driver != nullptr || d->group == nullptr) return;
  for (const Device* other : d->group->members) {
    if (other->driver != nullptr && provides_vfio(*other->driver, *other)) return;
  }
  Node* node = tree.find("dev/vfio/" + std::to_string(d->group->id));
  if (node != nullptr && node->vfio_group >= 0) tree.remove(node);
}

}  // namespace simhost
