#include "boot_cmdline.h"

#include <algorithm>
#include <array>

namespace hostdev {

namespace {

// Kernel (ip=, nfsroot=), initramfs-tools (BOOTIF=), dracut.cmdline(7) (netroot=, rd.neednet=, bootdev=,
// rd.route=).
constexpr std::array<std::string_view, 7> kNetwork = {
    "ip=", "nfsroot=", "netroot=", "BOOTIF=", "rd.neednet=", "bootdev=", "rd.route="};
// Values of root= that name no disk of this machine.
constexpr std::array<std::string_view, 10> kRemote = {"/dev/nfs", "nfs",  "iscsi", "nbd",       "fcoe",
                                                      "cifs",     "http", "ftp",   "live:http", "nvmf"};

template <size_t N>
bool begins_with_one(std::string_view text, const std::array<std::string_view, N>& list) {
  return std::ranges::any_of(list, [&](std::string_view s) { return text.starts_with(s); });
}

}  // namespace

BootCmdline read_boot_cmdline(std::string_view text) {
  constexpr std::string_view kBlank = " \t\n\r";
  BootCmdline out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of(kBlank, at), text.size());
    const std::string_view word = text.substr(at, end - at);
    at = end + 1;
    if (word == "hostdev.off=1") out.off = true;
    if (word.starts_with("root=")) out.root = word.substr(5);
    if (word.starts_with("resume=")) out.resume = word.substr(7);
    if (begins_with_one(word, kNetwork)) out.network = word;
  }
  if (out.network.empty() && begins_with_one(out.root, kRemote)) out.network = "root=" + out.root;
  return out;
}

}  // namespace hostdev
