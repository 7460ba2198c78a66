// What the kernel command line says to the boot binder.
#pragma once

#include <string>
#include <string_view>

namespace hostdev {

struct BootCmdline {
  // hostdev.off=1
  bool off = false;
  // The root comes over the network, or the initramfs brings it up: any NIC may be the one. The word that
  // says so.
  std::string network;
  // Values of the last root= and resume=; empty where there is none.
  std::string root;
  std::string resume;
};

BootCmdline read_boot_cmdline(std::string_view text);

}  // namespace hostdev
