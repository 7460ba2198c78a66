// hostdev's own state below a root, run/hostdev, for the hook client: what src/store/folder.ts is for node.
#pragma once

#include <string>

#include "fd.h"

namespace hostdev {

// Its path, for people.
std::string state_dir(const std::string& root);

// A folder of it ("lock", or "" for itself), made with its parents where `make` asks for that; not ok with
// errno. No link leads there: below another root none at all, on the machine's own none from run/hostdev on.
// EPERM where somebody else can write to it.
Fd open_state(const std::string& root, const std::string& folder, bool make);

}  // namespace hostdev
