// Who has a file open, by the links in proc/<pid>/fd.
#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include "root_fs.h"

namespace hostdev {

struct Holder {
  int pid;
  std::string command;
  std::string path;
};

// Processes below `root` with a descriptor whose link text is one of `targets`; one row a process and target.
// A process that ends meanwhile is left out, one that may not be looked into is counted in `unreadable`, as
// is one that the time (a second for all) was not enough for.
Failure find_holders(const Root& root, const std::unordered_set<std::string>& targets,
                     std::vector<Holder>& out, int& unreadable);

}  // namespace hostdev
