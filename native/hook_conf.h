// hostdev.conf beside the installed hook: what it starts, and how long it waits. Written by `hostdev hook
// install`.
#pragma once

#include <string>

namespace hostdev {

struct HookConf {
  // Where it was looked for, for messages; `found` tells whether it was there.
  std::string file;
  bool found = false;
  // Of several node= the first that can be executed; of none of them the last.
  std::string node;
  std::string cli;
  // What the package's removal wrote when it was forced while devices were bound; empty: it was not removed.
  std::string removed;
  std::string root = "/";
  double prepare_deadline = 30;
  double start_deadline = 5;
  double other_deadline = 2;
};

// Reads `file`, or, when empty, hostdev.conf in the folder above the one that holds this executable, else in
// that folder itself.
HookConf read_hook_conf(const std::string& file);

}  // namespace hostdev
