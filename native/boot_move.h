// Brings functions onto their drivers: overrides of all first, modules, then each group; a group of which one
// function does not get there is put back.
#pragma once

#include <vector>

#include "boot_judge.h"

namespace hostdev {

void move_devices(const Root& root, std::vector<BootDevice>& devices);

}  // namespace hostdev
