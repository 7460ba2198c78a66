// A device and a group whose attributes and links are the input's.
#include "scan.h"

#include <sys/stat.h>

#include <array>

#include "check.h"

namespace {
constexpr auto kDevice = "/sys/bus/pci/devices/0000:01:00.0";
constexpr std::array<const char*, 5> kFiles = {"modalias", "vendor", "numa_node", "sriov_totalvfs", "device"};
constexpr std::array<const char*, 3> kLinks = {"driver", "iommu_group", "physfn"};

std::string make_tree() {
  const std::string root = scratch_folder();
  for (const char* folder :
       {"/sys", "/sys/bus", "/sys/bus/pci", "/sys/bus/pci/devices", kDevice, "/sys/kernel",
        "/sys/kernel/iommu_groups", "/sys/kernel/iommu_groups/1", "/sys/kernel/iommu_groups/1/devices"})
    mkdir((root + folder).c_str(), 0700);
  return root;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string kRoot = make_tree();
  auto rest = text_of(data, size);
  const auto next = [&] {
    const size_t end = std::min(rest.find('\xff'), rest.size());
    const std::string part(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    return part;
  };
  for (const char* name : kLinks) {
    const std::string at = kRoot + kDevice + "/" + name;
    unlink(at.c_str());
    (void)!symlink(next().c_str(), at.c_str());
  }
  const std::string group = kRoot + "/sys/kernel/iommu_groups/1/";
  for (const auto& at : {group + "type", kRoot + kDevice + "/" + kFiles[0], kRoot + kDevice + "/" + kFiles[1],
                         kRoot + kDevice + "/" + kFiles[2], kRoot + kDevice + "/" + kFiles[3]}) {
    unlink(at.c_str());
    const std::string text = next();
    if (text.empty()) continue;
    const hostdev::Fd fd(open(at.c_str(), O_RDWR | O_CREAT, 0600));
    refill(fd.get(), text);
  }
  hostdev::Root root;
  check(!hostdev::open_root(kRoot, root), "the root opens");
  std::vector<hostdev::RawDevice> devices;
  std::vector<hostdev::RawGroup> groups;
  std::vector<hostdev::Failure> failures;
  hostdev::scan_devices(root, devices, failures);
  hostdev::scan_groups(root, groups, failures);
  check(devices.size() == 1 && groups.size() == 1, "the device and the group are there");
  for (const auto& text : {devices[0].modalias, devices[0].numa_node, devices[0].total_vfs, groups[0].type})
    check(!text || text->size() <= 4096, "an attribute is at most a page");
  for (const auto& name : {devices[0].driver, devices[0].iommu_group, devices[0].physfn})
    check(!name || name->find('/') == std::string::npos, "a name is no path");
  return 0;
}
