// What of the table may be done on this host at this boot: identity, then guards. Reads only.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "boot_cmdline.h"
#include "boot_table.h"
#include "root_fs.h"

namespace hostdev {

// A function of the table on this host. `reason` says why nothing is done with it, or what failed; empty: it
// goes, or went.
struct BootDevice {
  const TableDevice* wished = nullptr;
  // Where it is now; empty where it is not.
  std::string address;
  // The driver that it has; empty for none.
  std::string driver;
  // The override that it had; empty for none.
  std::string before;
  bool was_bound = false;
  bool done = false;
  // Nothing is wrong with it, but for a peer of its group.
  bool held_back = false;
  std::string reason;
};

// One for each device of the table, in its order. A group of which one function is refused is refused as a
// whole; one whose function is not there goes without it.
std::vector<BootDevice> judge_devices(const Root& root, const BootTable& table, const BootCmdline& cmdline,
                                      const std::map<std::string, std::string>& address_by_path);

}  // namespace hostdev
