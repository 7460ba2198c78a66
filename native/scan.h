// The scan of PCI devices and IOMMU groups. It reads nothing that takes a device's lock (uevent,
// driver_override and sriov_numvfs do in many kernels, and behind a hung unbind they never answer) and never
// `config`, which goes to the device and may wake it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "root_fs.h"

namespace hostdev {

using Text = std::optional<std::string>;

struct RawDevice {
  std::string address;
  Text modalias;
  // vendor device class subsystem_vendor subsystem_device; read only when there is no modalias.
  std::vector<Text> ids;
  Text numa_node;
  Text driver;
  Text iommu_group;
  Text physfn;
  Text total_vfs;
};

struct RawGroup {
  std::string id;
  Text type;
  Text reserved_regions;
  std::vector<std::string> devices;
};

// Devices sorted by address; `failures` are attributes that could not be read. A device that vanishes
// meanwhile is left out.
void scan_devices(const Root& root, std::vector<RawDevice>& devices, std::vector<Failure>& failures);

// Groups sorted by number.
void scan_groups(const Root& root, std::vector<RawGroup>& groups, std::vector<Failure>& failures);

}  // namespace hostdev
