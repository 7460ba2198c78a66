// flock(2) on a file of run/hostdev/lock: the kernel gives it up for a process that dies.
#pragma once

#include <string>

#include "root_fs.h"

namespace hostdev {

// Takes the lock without waiting. `out` holds nothing when another process has it. The file is made when
// missing (0600), never followed through a link, and never removed: removing one that another process waits
// on would give the same lock to two.
Failure try_lock(const std::string& file, bool shared, Fd& out);

}  // namespace hostdev
