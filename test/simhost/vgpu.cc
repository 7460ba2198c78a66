// NVIDIA's vGPU driver, as far as the NVIDIA vGPU User Guide tells it: each VF on it shows the type that it
// has and those that it could have now. The VFs of a GPU share its memory, and are of one size.
#include <cerrno>

#include "kernel.h"

namespace simhost {

namespace {

struct Type {
  int id = 0;
  int size = 0;
  std::string name;
};

// "592:6:NVIDIA A10-6Q,594:12:NVIDIA A10-12Q"
std::vector<Type> types_of(const Device& pf) {
  std::vector<Type> types;
  for (const auto& word : split(pf.description.text("vgpus"), ',')) {
    const auto parts = split(word, ':');
    if (parts.size() == 3) types.push_back({atoi(parts[0].c_str()), atoi(parts[1].c_str()), parts[2]});
  }
  return types;
}

std::vector<Type> creatable_of(const Device& d) {
  if (d.vgpu_type != 0) return {};
  const auto all = types_of(*d.physfn);
  int left = d.physfn->description.number("vgpu_room");
  int used = 0;
  for (const auto& [number, vf] : d.physfn->vfs) {
    for (const auto& type : all) {
      if (type.id != vf->vgpu_type) continue;
      used = type.size;
      left -= type.size;
    }
  }
  std::vector<Type> types;
  for (const auto& type : all) {
    if (type.size <= left && (used == 0 || type.size == used)) types.push_back(type);
  }
  return types;
}

}  // namespace

// VFIO has a device from a driver of its own, or a VF from the vGPU driver.
bool Kernel::provides_vfio(const Driver& r, const Device& d) {
  return r.vfio || (r.vgpu && d.physfn != nullptr);
}

void Kernel::show_vgpu(Device* d) {
  if (d->driver == nullptr || !d->driver->vgpu || d->physfn == nullptr) return;
  Node* folder = tree.child(d->folder, "nvidia", Kind::kFolder, 0755);
  Node* current = tree.attribute(folder, "current_vgpu_type", 0644);
  current->show = [d](Lock&, std::string& out) {
    out = std::to_string(d->vgpu_type) + "\n";
    return 0;
  };
  current->store = [this, d](Lock&, const std::string& value) { return store_vgpu_type(d, value); };
  tree.attribute(folder, "creatable_vgpu_types", 0444)->show = [d](Lock&, std::string& out) {
    out = "ID    : vGPU Name\n";
    for (const auto& type : creatable_of(*d)) out += std::to_string(type.id) + "   : " + type.name + "\n";
    return 0;
  };
}

void Kernel::hide_vgpu(Device* d) {
  d->vgpu_type = 0;
  if (Node* folder = tree.find(path_of(d->folder) + "/nvidia")) tree.remove(folder);
}

int Kernel::store_vgpu_type(Device* d, const std::string& value) {
  const long id = parse_unsigned(value);
  if (id < 0) return EINVAL;
  if (d->group != nullptr && d->group->opened > 0) return EBUSY;
  bool fits = id == 0;
  for (const auto& type : creatable_of(*d)) fits = fits || type.id == id;
  if (!fits) return EINVAL;
  d->vgpu_type = static_cast<int>(id);
  return 0;
}

}  // namespace simhost
