#include "scan.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

namespace hostdev {

namespace {

// An attribute of sysfs is at most a page; more is no attribute, and the reader of the scan says so.
constexpr size_t kPage = 4096;

bool is_absent(int error) {
  return error == ENOENT || error == ENOTDIR || error == ENODEV || error == ENXIO;
}

// The text of an attribute in a device's folder. Plain openat is enough for one component: an attribute is
// never a link on sysfs, and O_NOFOLLOW refuses one on anything else.
Text read_attribute(int dir, const std::string& folder, const char* name, std::vector<Failure>& failures) {
  const Fd fd(openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd.ok()) {
    if (!is_absent(errno)) failures.push_back({errno, "openat", folder + "/" + name});
    return std::nullopt;
  }
  std::string text;
  if (auto failure = read_all(fd.get(), {}, kPage, true, text)) {
    failure.path = folder + "/" + name;
    if (!is_absent(failure.error)) failures.push_back(failure);
    return std::nullopt;
  }
  return text;
}

// The last component of a link in a device's folder.
Text read_link_name(int dir, const std::string& folder, const char* name, std::vector<Failure>& failures) {
  std::string target;
  if (auto failure = read_link_at(dir, name, {}, target)) {
    failure.path = folder + "/" + name;
    if (!is_absent(failure.error)) failures.push_back(failure);
    return std::nullopt;
  }
  return target.substr(target.rfind('/') + 1);
}

bool is_gone(const Root& root, const std::string& folder) {
  Fd dir;
  return is_absent(open_in_root(root, folder, O_PATH | O_DIRECTORY, dir).error);
}

// One descriptor a device: kernfs walks every component of a path anew, which costs more than all the reads.
bool read_device(const Root& root, const std::string& address, RawDevice& out,
                 std::vector<Failure>& failures) {
  const std::string folder = "sys/bus/pci/devices/" + address;
  Fd dir;
  if (const auto failure = open_in_root(root, folder, O_PATH | O_DIRECTORY, dir)) {
    if (!is_absent(failure.error)) failures.push_back(failure);
    return false;
  }
  out.address = address;
  out.modalias = read_attribute(dir.get(), folder, "modalias", failures);
  if (!out.modalias || out.modalias->empty()) {
    for (const char* name : {"vendor", "device", "class", "subsystem_vendor", "subsystem_device"}) {
      out.ids.push_back(read_attribute(dir.get(), folder, name, failures));
    }
  }
  out.driver = read_link_name(dir.get(), folder, "driver", failures);
  out.iommu_group = read_link_name(dir.get(), folder, "iommu_group", failures);
  out.physfn = read_link_name(dir.get(), folder, "physfn", failures);
  if (!out.physfn) out.total_vfs = read_attribute(dir.get(), folder, "sriov_totalvfs", failures);
  out.numa_node = read_attribute(dir.get(), folder, "numa_node", failures);
  // The first and the last were there: so was the device, all the time. Otherwise it may have been removed
  // meanwhile, and what was read of it is the half of nothing.
  return (out.modalias && out.numa_node) || !is_gone(root, folder);
}

// Domains may have more than four digits: shorter texts come first, equal ones in order of text.
bool before(const std::string& a, const std::string& b) {
  return a.size() != b.size() ? a.size() < b.size() : a < b;
}

bool names_in(const Root& root, const std::string& folder, std::vector<std::string>& names,
              std::vector<Failure>& failures) {
  Fd dir;
  auto failure = open_in_root(root, folder, O_RDONLY | O_DIRECTORY, dir);
  if (!failure) failure = read_names(dir.get(), folder, names);
  if (!failure) return true;
  if (!is_absent(failure.error)) failures.push_back(failure);
  return false;
}

bool read_group(const Root& root, const std::string& id, RawGroup& out, std::vector<Failure>& failures) {
  const std::string folder = "sys/kernel/iommu_groups/" + id;
  Fd dir;
  if (const auto failure = open_in_root(root, folder, O_PATH | O_DIRECTORY, dir)) {
    if (!is_absent(failure.error)) failures.push_back(failure);
    return false;
  }
  out.id = id;
  out.type = read_attribute(dir.get(), folder, "type", failures);
  out.reserved_regions = read_attribute(dir.get(), folder, "reserved_regions", failures);
  const Fd devices(openat(dir.get(), "devices", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  auto failure = devices.ok() ? read_names(devices.get(), folder + "/devices", out.devices)
                              : Failure{errno, "openat", folder + "/devices"};
  if (failure && !is_absent(failure.error)) failures.push_back(std::move(failure));
  std::sort(out.devices.begin(), out.devices.end(), before);
  // A group ends with its last device.
  return !out.devices.empty() || !is_gone(root, folder);
}

}  // namespace

void scan_devices(const Root& root, std::vector<RawDevice>& devices, std::vector<Failure>& failures) {
  std::vector<std::string> names;
  if (!names_in(root, "sys/bus/pci/devices", names, failures)) return;
  std::sort(names.begin(), names.end(), before);
  devices.reserve(names.size());
  for (const auto& name : names) {
    RawDevice device;
    if (read_device(root, name, device, failures)) devices.push_back(std::move(device));
  }
}

void scan_groups(const Root& root, std::vector<RawGroup>& groups, std::vector<Failure>& failures) {
  std::vector<std::string> names;
  if (!names_in(root, "sys/kernel/iommu_groups", names, failures)) return;
  std::sort(names.begin(), names.end(), before);
  for (const auto& name : names) {
    RawGroup group;
    if (read_group(root, name, group, failures)) groups.push_back(std::move(group));
  }
}

}  // namespace hostdev
