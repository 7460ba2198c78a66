// What the kernel knows of a network interface, with the settings of its VFs: one RTM_GETLINK over rtnetlink;
// and its one bit IFF_UP, by RTM_SETLINK.
// Asked for from the helper, for the kernel answers inside our own sendmsg(2), under its one lock for all
// interfaces (net/core/rtnetlink.c): whoever hangs there hangs us. The answer goes as bytes to whoever takes
// it apart, where it is tested on bytes.
#pragma once

#include <cstdint>
#include <string>

namespace hostdev {

// 0 or an errno, the kernel's own included; `message` is the whole RTM_NEWLINK with its header.
int read_link(uint32_t index, std::string& message);

// 0 or an errno. The other flags stay as they are, whoever changes them meanwhile: sysfs takes them all at
// once.
int set_link_up(uint32_t index, bool up);

}  // namespace hostdev
