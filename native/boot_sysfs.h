// The PCI functions of a root as the boot binder sees them: before any driver has one, from what the bus
// itself shows. All text is whatever somebody wrote, below a root that is not the machine's.
#pragma once

#include <map>
#include <string>

#include "root_fs.h"

namespace hostdev {

// Address of each function by its path of slots. A function whose path is not to be told is left out.
Failure slot_paths(const Root& root, std::map<std::string, std::string>& address_by_path);

// The path of slots that an entry of sys/bus/pci/devices leads to (src/pci/identity.ts slotPath); empty where
// there is none.
std::string slot_path(const std::string& target, const std::string& address);

std::string device_file(const std::string& address, const std::string& file);

// An attribute without its newline. Empty when it is not there or cannot be read, which `failure`, where
// given, tells.
std::string attribute(const Root& root, const std::string& path, Failure* failure = nullptr);

// The last component of a link; empty when it is not there.
std::string link_name(const Root& root, const std::string& path);

bool exists(const Root& root, const std::string& path);

// Device Serial Number from config space; empty where there is none to be seen.
std::string device_serial(const Root& root, const std::string& address);

// One write(2), as sysfs takes orders.
Failure write_attribute(const Root& root, const std::string& path, const std::string& value);

}  // namespace hostdev
