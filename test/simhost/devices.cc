// Devices, bridges and IOMMU groups: appearing, being removed, coming back.
#include <algorithm>
#include <cerrno>

#include "kernel.h"

namespace simhost {

namespace {

// SV, RR, CR and UF: what drivers/iommu/iommu.c asks of a bridge that keeps devices apart (REQ_ACS_FLAGS).
constexpr int kIsolation = 0x1d;

bool acs_enabled(const Device& d) {
  const std::string port = d.description.text("port", d.is_bridge() ? "root" : "endpoint");
  const bool flags = (d.description.number("acs", 0) & kIsolation) == kIsolation;
  if (port == "pci" || port == "bridge") return false;
  if (port == "root" || port == "down") return flags;
  return d.description.number("multifunction") == 0 || flags;
}

// 0000:21:10.2 is in slot 0000:21:10.
std::string slot_of(const std::string& address) {
  return address.substr(0, address.rfind('.'));
}

}  // namespace

Device* Kernel::live(const std::string& address) {
  const auto it = live_.find(address);
  return it == live_.end() ? nullptr : it->second;
}

Device* Kernel::create(const Command& description, Device* physfn) {
  Device& d = devices_.emplace_back();
  d.address = description.words[1];
  d.description = description;
  const auto half = [](const std::string& ids, bool second) {
    const size_t colon = ids.find(':');
    return colon == std::string::npos ? std::string("0000")
                                      : (second ? ids.substr(colon + 1) : ids.substr(0, colon));
  };
  d.vendor = half(description.words[2], false);
  d.product = half(description.words[2], true);
  d.class_code = description.text("class", "020000");
  d.sub_vendor = half(description.text("subsystem", "0000:0000"), false);
  d.sub_product = half(description.text("subsystem", "0000:0000"), true);
  d.parent = description.text("parent");
  d.physfn = physfn;
  d.total_vfs = description.number("totalvfs");
  d.reset_methods = description.text("reset", "flr bus");
  return &d;
}

// drivers/pci/probe.c pci_device_add and bus.c pci_bus_add_device, without the probe.
void Kernel::appear(Device* d) {
  Device* bridge = live(d->parent);
  const std::string root = "sys/devices/pci" + d->address.substr(0, d->address.rfind(':'));
  Node* home =
      bridge != nullptr ? bridge->folder : tree.folder(d->parent.empty() ? root : "sys/devices/" + d->parent);
  d->folder = tree.child(home, d->address, Kind::kFolder, 0755);
  d->folder->device = d;
  live_[d->address] = d;
  make_attributes(d);
  tree.link_to(tree.folder("sys/bus/pci/devices"), d->address, d->folder);
  tree.link_to(d->folder, "subsystem", tree.folder("sys/bus/pci"));
  join_group(d);
  if (d->physfn != nullptr) {
    Device* pf = d->physfn;
    tree.link_to(d->folder, "physfn", pf->folder);
    const int number = pf->vfs.empty() ? 0 : pf->vfs.rbegin()->first + 1;
    tree.link_to(pf->folder, "virtfn" + std::to_string(number), d->folder);
    pf->vfs[number] = d;
  }
}

Group* Kernel::new_group(int id) {
  Group& group = groups_[id];
  if (group.folder != nullptr && !group.folder->dead) return &group;
  group.id = id;
  group.folder = tree.folder("sys/kernel/iommu_groups/" + std::to_string(id));
  tree.folder("sys/kernel/iommu_groups/" + std::to_string(id) + "/devices");
  Node* type = tree.attribute(group.folder, "type", 0644);
  Group* g = &group;
  type->show = [g](Lock&, std::string& out) {
    out = g->type + "\n";
    return 0;
  };
  // iommu_group_store_type: the word first, then whether a driver is bound.
  type->store = [g](Lock&, const std::string& value) {
    const std::string word = without_newline(value);
    if (word != "DMA" && word != "DMA-FQ" && word != "identity" && word != "auto") return EINVAL;
    const auto bound = [](const Device* d) {
      return d->driver != nullptr && !d->driver->vfio && !d->driver->managed_dma;
    };
    const bool live = g->type == "DMA" && word == "DMA-FQ";
    if (!live && std::any_of(g->members.begin(), g->members.end(), bound)) return EPERM;
    g->type = word == "auto" ? "DMA-FQ" : word;
    return 0;
  };
  Node* regions = tree.attribute(group.folder, "reserved_regions", 0444);
  regions->show = [](Lock&, std::string& out) {
    out = "0x00000000fee00000 0x00000000feefffff msi\n";
    return 0;
  };
  return g;
}

// drivers/iommu/iommu.c pci_device_group
Group* Kernel::group_of_topology(Device* d) {
  const Device* at = d;
  for (Device* bridge = live(at->parent); bridge != nullptr; bridge = live(bridge->parent)) {
    bool isolated = true;
    for (const Device* up = bridge; up != nullptr; up = live(up->parent)) isolated &= acs_enabled(*up);
    if (isolated) break;
    at = bridge;
    if (bridge->group != nullptr) return bridge->group;
  }
  if (at->description.number("multifunction") != 0 && !acs_enabled(*at)) {
    for (const auto& [address, other] : live_) {
      if (other != at && other->group != nullptr && other->description.number("multifunction") != 0 &&
          slot_of(address) == slot_of(at->address) && !acs_enabled(*other))
        return other->group;
    }
  }
  int id = 0;
  while (groups_.count(id) > 0 && !groups_[id].members.empty()) ++id;
  return new_group(id);
}

void Kernel::join_group(Device* d) {
  const std::string wish = d->description.text("group");
  if (wish.empty()) return;
  d->group = wish == "auto" ? group_of_topology(d) : new_group(d->description.number("group"));
  d->group->members.insert(d);
  tree.link_to(d->folder, "iommu_group", d->group->folder);
  tree.link_to(tree.folder(path_of(d->group->folder) + "/devices"), d->address, d->folder);
}

// drivers/pci/remove.c pci_stop_and_remove_bus_device: what is below a bridge first. The caller holds the
// device's lock, unless it was pulled out.
void Kernel::remove_device(Lock& lock, Device* d, bool surprise) {
  std::vector<Device*> below;
  for (const auto& [address, other] : live_) {
    if (other->parent == d->address) below.push_back(other);
  }
  for (Device* child : below) {
    const bool locked = !surprise && lock_device(lock, child);
    if (!child->gone) remove_device(lock, child, surprise);
    if (locked) unlock_device(child);
  }
  if (!surprise && d->driver != nullptr) release_driver(lock, d);
  if (d->gone) return;
  if (surprise) {
    for (const auto& [number, vf] : std::map<int, Device*>(d->vfs)) remove_device(lock, vf, true);
    hide_driver(d);
    hide_vfio(d);
    d->driver = nullptr;
  } else {
    remove_vfs(lock, d);
  }
  d->gone = true;
  deferred_.erase(d);
  live_.erase(d->address);
  if (d->group != nullptr) {
    Group* group = d->group;
    group->members.erase(d);
    tree.remove(tree.find(path_of(group->folder) + "/devices/" + d->address));
    if (group->members.empty()) {
      tree.remove(group->folder);
      groups_.erase(group->id);
    }
    d->group = nullptr;
  }
  if (Device* pf = d->physfn) {
    // A VF that goes alone leaves its PF's link and count behind: only sriov_numvfs changes those.
    std::erase_if(pf->vfs, [d](const auto& entry) { return entry.second == d; });
  } else {
    removed_.push_back(d->description);
  }
  tree.remove(tree.find("sys/bus/pci/devices/" + d->address));
  tree.remove(d->folder);
  changed_.notify_all();
}

// A device that is found again is a new object: no override, and whatever driver claims it.
void Kernel::rescan(Lock& lock) {
  std::vector<Command> found;
  found.swap(removed_);
  std::sort(found.begin(), found.end(),
            [](const Command& a, const Command& b) { return a.words[1] < b.words[1]; });
  for (const auto& description : found) {
    if (live(description.words[1]) != nullptr) continue;
    Device* d = create(description, nullptr);
    appear(d);
    if (autoprobe_ && lock_device(lock, d)) {
      attach_any(lock, d);
      unlock_device(d);
    }
  }
}

}  // namespace simhost
