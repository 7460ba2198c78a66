// SR-IOV: drivers/pci/iov.c. A PF's VFs are devices like others, described by its vfids, vfgroup, vfoffset
// and vfstride.
#include <cerrno>
#include <cstdio>
#include <thread>

#include "kernel.h"

namespace simhost {

namespace {

// pci_iov_virtfn_bus and _devfn: the VFs' routing ids follow the PF's.
std::string vf_address(const std::string& pf, int offset, int stride, int index) {
  unsigned domain = 0;
  unsigned bus = 0;
  unsigned slot = 0;
  unsigned function = 0;
  sscanf(pf.c_str(), "%x:%x:%x.%x", &domain, &bus, &slot, &function);
  const unsigned id = (bus << 8U) + (slot << 3U) + function + static_cast<unsigned>(offset + stride * index);
  char address[32];
  snprintf(address, sizeof address, "%04x:%02x:%02x.%x", domain, id >> 8U & 0xffU, id >> 3U & 0x1fU, id & 7U);
  return address;
}

}  // namespace

void Kernel::make_sriov(Device* d) {
  if (d->total_vfs <= 0) return;
  tree.attribute(d->folder, "sriov_totalvfs", 0444)->show = [d](Lock&, std::string& out) {
    out = std::to_string(d->total_vfs) + "\n";
    return 0;
  };
  const auto fixed = [&](const char* name, const std::string& text) {
    tree.attribute(d->folder, name, 0444)->show = [text](Lock&, std::string& out) {
      out = text + "\n";
      return 0;
    };
  };
  fixed("sriov_offset", std::to_string(d->description.number("vfoffset", 128)));
  fixed("sriov_stride", std::to_string(d->description.number("vfstride", 2)));
  fixed("sriov_vf_device", d->description.text("vfids", "0000:0000").substr(5));
  Node* count = tree.attribute(d->folder, "sriov_numvfs", 0644);
  count->locks_reads = true;
  count->locks = [d](const std::string&) { return d; };
  count->show = [d](Lock&, std::string& out) {
    out = std::to_string(d->num_vfs) + "\n";
    return 0;
  };
  count->store = [this, d](Lock& lock, const std::string& value) { return store_numvfs(lock, d, value); };
  Node* autoprobe = tree.attribute(d->folder, "sriov_drivers_autoprobe", 0644);
  autoprobe->show = [d](Lock&, std::string& out) {
    out = d->autoprobe_vfs ? "1\n" : "0\n";
    return 0;
  };
  autoprobe->store = [d](Lock&, const std::string& value) {
    const int yes = parse_bool(value);
    if (yes < 0) return EINVAL;
    d->autoprobe_vfs = yes == 1;
    return 0;
  };
}

// sriov_numvfs_store
int Kernel::store_numvfs(Lock& lock, Device* d, const std::string& value) {
  const long n = parse_unsigned(value);
  if (n < 0 || n > 0xffff) return EINVAL;
  if (n > d->total_vfs) return ERANGE;
  if (n == d->num_vfs) return 0;
  Driver* r = d->driver;
  if (r == nullptr || !r->sriov) return ENOENT;
  if (!r->wants_up.empty() && !d->up) return errno_of(r->wants_up);
  if (n == 0) {
    remove_vfs(lock, d);
    return 0;
  }
  if (d->num_vfs > 0) return EBUSY;
  if (r->sriov_errno != 0) return r->sriov_errno;
  const int count = static_cast<int>(n);
  if (!r->vf_late) {
    add_vfs(lock, d, count, r);
    d->num_vfs = count;
    return 0;
  }
  d->num_vfs = count;
  std::thread([this, d, count, r] {
    Lock own(mutex);
    add_vfs(own, d, count, r);
  }).detach();
  return 0;
}

void Kernel::add_vfs(Lock& lock, Device* d, int count, Driver* r) {
  for (int i = 0; i < count && !d->gone && !stopping_; ++i) {
    sleep_ms(lock, r->vf_ms);
    if (r->vf_late && d->num_vfs != count) return;
    add_vf(lock, d, i);
  }
}

void Kernel::add_vf(Lock& lock, Device* d, int index) {
  const Command& pf = d->description;
  Command vf;
  vf.words = {"device", vf_address(d->address, pf.number("vfoffset", 128), pf.number("vfstride", 2), index),
              pf.text("vfids", "0000:0000")};
  vf.options["class"] = d->class_code;
  vf.options["reset"] = "flr";
  for (const char* same : {"numa", "parent"}) {
    if (pf.has(same)) vf.options[same] = pf.text(same);
  }
  if (pf.text("vfgroup") == "auto") vf.options["group"] = "auto";
  if (pf.number("vfgroup", -1) >= 0) vf.options["group"] = std::to_string(pf.number("vfgroup") + index);
  if (live(vf.words[1]) != nullptr) return;
  Device* fresh = create(vf, d);
  appear(fresh);
  if (!autoprobe_ || !lock_device(lock, fresh)) return;
  attach_any(lock, fresh);
  unlock_device(fresh);
}

// sriov_del_vfs and pci_iov_remove_virtfn: the first one first, its links before itself; a VF that somebody
// holds is waited for.
void Kernel::remove_vfs(Lock& lock, Device* d) {
  for (int i = 0; i < d->num_vfs; ++i) {
    tree.remove(tree.find(path_of(d->folder) + "/virtfn" + std::to_string(i)));
    const auto at = d->vfs.find(i);
    if (at == d->vfs.end()) continue;
    Device* vf = at->second;
    tree.remove(tree.find(path_of(vf->folder) + "/physfn"));
    if (lock_device(lock, vf)) {
      remove_device(lock, vf, false);
      unlock_device(vf);
    }
    if (stopping_) return;
  }
  d->num_vfs = 0;
}

}  // namespace simhost
