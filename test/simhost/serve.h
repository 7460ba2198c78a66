// The model as a file system: libfuse's low-level interface, because only there an open of an attribute can
// be answered with FOPEN_PARALLEL_DIRECT_WRITES, without which the kernel would let one write at a time into
// each file (Debian 12's libfuse 3.14 has no field for it).
#pragma once

#include <string>

#include "kernel.h"

namespace simhost {

// Serves until it is unmounted or told to end (SIGTERM, SIGINT). Prints "ready" when it is mounted. The exit
// status.
int serve(Kernel& kernel, const std::string& mountpoint);

}  // namespace simhost
