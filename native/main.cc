// One executable, three programs: the helper that writes to sysfs, the hook that libvirt starts, and what the
// initramfs runs. A copy installed as libvirt's hook is known by its name, because libvirt gives it the
// hook's four words and nothing else.
#include <unistd.h>

#include <cstring>

#include "boot.h"
#include "hook.h"
#include "writer.h"

namespace {

// `hostdev hook install` knows this executable by its usage text.
constexpr char kUsage[] =
    "usage: hostdev-native hook [--conf FILE] NAME OPERATION SUBOPERATION EXTRA | hostdev-native write | "
    "hostdev-native boot [--root DIR]\n";

bool is_hook_name(const char* argv0) {
  const char* slash = strrchr(argv0, '/');
  const char* name = slash == nullptr ? argv0 : slash + 1;
  return strcmp(name, "90-hostdev") == 0 || strcmp(name, "qemu") == 0;
}

}  // namespace

int main(int argc, char** argv) {
  const bool is_hook = argc > 0 && is_hook_name(argv[0]);
  // Four words are the hook under any name: libvirt runs 50-hostdev, 90-hostdev~ and .90-hostdev.new too, and
  // an exit code of 2 would kill the guest that `started` or `reconnect` is about.
  constexpr int kHookWords = 5;
  if (argc == kHookWords || is_hook) return hostdev::run_hook(argc - 1, argv + 1);
  if (argc == 2 && strcmp(argv[1], "write") == 0) return hostdev::run_writer();
  if (argc > 1 && strcmp(argv[1], "boot") == 0) return hostdev::run_boot(argc - 2, argv + 2);
  if (argc > 1 && strcmp(argv[1], "hook") == 0) return hostdev::run_hook(argc - 2, argv + 2);
  (void)!write(STDERR_FILENO, static_cast<const char*>(kUsage), sizeof kUsage - 1);
  return 2;
}
