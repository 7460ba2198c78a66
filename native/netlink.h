// What the kernel knows of a network interface, with the settings of its VFs: one RTM_GETLINK over rtnetlink.
// Asked for from the helper, for the kernel answers inside our own sendmsg(2), under its one lock for all
// interfaces (net/core/rtnetlink.c): whoever hangs there hangs us. The answer goes as bytes to whoever takes
// it apart, where it is tested on bytes.
#pragma once

#include <cstdint>
#include <string>

namespace hostdev {

// 0 or an errno, the kernel's own included; `message` is the whole RTM_NEWLINK with its header.
int read_link(uint32_t index, std::string& message);

}  // namespace hostdev
