#include "state_dir.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

namespace hostdev {

namespace {

constexpr int kFolder = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
// As contract 13 has them: all may look, but for the journal and the locks.
constexpr mode_t kOpen = 0755;
constexpr mode_t kClosed = 0700;

// Whoever else can write there can put a link or a lock of his own into it.
bool is_ours(const Fd& folder) {
  struct stat is {};
  if (fstat(folder.get(), &is) != 0) return false;
  return (is.st_uid == 0 || is.st_uid == geteuid()) && (is.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

Fd step(const Fd& at, const std::string& name, int flags, bool make) {
  Fd next(openat(at.get(), name.c_str(), kFolder | flags));
  if (next.ok() || errno != ENOENT || !make) return next;
  const mode_t mode = name == "lock" || name == "journal" ? kClosed : kOpen;
  if (mkdirat(at.get(), name.c_str(), mode) != 0) {
    if (errno != EEXIST) return {};
    return Fd(openat(at.get(), name.c_str(), kFolder | flags));
  }
  next = Fd(openat(at.get(), name.c_str(), kFolder | flags));
  // Whatever the umask of whoever calls us says.
  if (next.ok()) (void)fchmod(next.get(), mode);
  return next;
}

}  // namespace

std::string state_dir(const std::string& root) {
  return (root == "/" ? "" : root) + "/run/hostdev";
}

Fd open_state(const std::string& root, const std::string& folder, bool make) {
  Fd at(open(root.c_str(), kFolder));
  if (at.ok()) at = step(at, "run", root == "/" ? 0 : O_NOFOLLOW, make);
  if (at.ok()) at = step(at, "hostdev", O_NOFOLLOW, make);
  if (at.ok() && !folder.empty() && is_ours(at)) at = step(at, folder, O_NOFOLLOW, make);
  if (!at.ok() || is_ours(at)) return at;
  errno = EPERM;
  return {};
}

}  // namespace hostdev
