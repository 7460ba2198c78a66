// sys/bus/pci: drivers_probe, drivers_autoprobe, rescan, and each driver's bind, unbind, new_id and
// remove_id.
#include <cerrno>
#include <cstdio>

#include "kernel.h"

namespace simhost {

void Kernel::make_bus() {
  Node* bus = tree.folder("sys/bus/pci");
  tree.folder("sys/bus/pci/devices");
  tree.folder("sys/bus/pci/drivers");
  tree.folder("sys/kernel/iommu_groups");
  tree.folder("sys/module");
  for (const char* kind : {"net", "block", "iommu", "drm", "vtconsole"})
    tree.folder(std::string("sys/class/") + kind);
  tree.folder("dev/vfio");
  tree.child(tree.folder("dev/vfio"), "vfio", Kind::kFile, 0666);

  Node* probe = tree.attribute(bus, "drivers_probe", 0200);
  probe->store = [this](Lock& lock, const std::string& value) { return store_probe(lock, value); };
  probe->locks = [this](const std::string& value) { return live(without_newline(value)); };

  Node* autoprobe = tree.attribute(bus, "drivers_autoprobe", 0644);
  autoprobe->show = [this](Lock&, std::string& out) {
    out = autoprobe_ ? "1\n" : "0\n";
    return 0;
  };
  // drivers_autoprobe_store: anything but 0 is yes.
  autoprobe->store = [this](Lock&, const std::string& value) {
    autoprobe_ = value.empty() || value[0] != '0';
    return 0;
  };

  Node* again = tree.attribute(bus, "rescan", 0200);
  again->store = [this](Lock& lock, const std::string& value) {
    const long n = parse_unsigned(value);
    if (n < 0) return EINVAL;
    if (n > 0) rescan(lock);
    return 0;
  };
}

void Kernel::make_driver_files(Driver* r) {
  const auto named = [this](const std::string& value) { return live(without_newline(value)); };
  Node* bind = tree.attribute(r->folder, "bind", 0200);
  bind->store = [this, r](Lock& lock, const std::string& value) { return store_bind(lock, r, value); };
  bind->locks = named;
  Node* unbind = tree.attribute(r->folder, "unbind", 0200);
  unbind->store = [this, r](Lock& lock, const std::string& value) { return store_unbind(lock, r, value); };
  unbind->locks = named;
  Node* new_id = tree.attribute(r->folder, "new_id", 0200);
  new_id->store = [this, r](Lock& lock, const std::string& value) { return store_new_id(lock, r, value); };
  Node* remove_id = tree.attribute(r->folder, "remove_id", 0200);
  remove_id->store = [r](Lock&, const std::string& value) {
    unsigned vendor = 0;
    unsigned product = 0;
    if (sscanf(value.c_str(), "%x %x", &vendor, &product) < 2) return EINVAL;
    char ids[16];
    snprintf(ids, sizeof ids, "%04x:%04x", vendor & 0xffffU, product & 0xffffU);
    return r->dynamic_ids.erase(ids) > 0 ? 0 : ENODEV;
  };
  if (r->module.empty()) return;
  Node* module = tree.folder("sys/module/" + r->module);
  tree.folder("sys/module/" + r->module + "/drivers");
  tree.link_to(r->folder, "module", module);
  tree.link_to(tree.folder("sys/module/" + r->module + "/drivers"), "pci:" + r->name, r->folder);
}

// bind_store and device_driver_attach
int Kernel::store_bind(Lock& lock, Driver* r, const std::string& value) {
  Device* d = live(without_newline(value));
  if (d == nullptr || !matches(*r, *d)) return ENODEV;
  if (d->driver != nullptr) return EBUSY;
  const int error = probe(lock, d, r);
  return error == 517 ? EAGAIN : error;
}

// unbind_store
int Kernel::store_unbind(Lock& lock, Driver* r, const std::string& value) {
  Device* d = live(without_newline(value));
  if (d == nullptr || d->driver != r) return ENODEV;
  release_driver(lock, d);
  return 0;
}

// drivers_probe_store: that no driver wanted the device, or that one failed, is no error.
int Kernel::store_probe(Lock& lock, const std::string& value) {
  Device* d = live(without_newline(value));
  if (d == nullptr) return ENODEV;
  attach_any(lock, d);
  return 0;
}

// drivers/pci/pci-driver.c new_id_store, and driver_attach for whoever fits.
int Kernel::store_new_id(Lock& lock, Driver* r, const std::string& value) {
  unsigned vendor = 0;
  unsigned product = 0;
  if (sscanf(value.c_str(), "%x %x", &vendor, &product) < 2) return EINVAL;
  char ids[16];
  snprintf(ids, sizeof ids, "%04x:%04x", vendor & 0xffffU, product & 0xffffU);
  if ((!r->vfio && r->ids.count(ids) > 0) || !r->dynamic_ids.insert(ids).second) return EEXIST;
  for (const auto& [address, d] : std::map<std::string, Device*>(live_)) {
    if (d->driver != nullptr || !matches(*r, *d) || !lock_device(lock, d)) continue;
    if (d->driver == nullptr) probe(lock, d, r);
    unlock_device(d);
  }
  return 0;
}

}  // namespace simhost
