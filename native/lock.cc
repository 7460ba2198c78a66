#include "lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>

namespace hostdev {

Failure try_lock(const std::string& file, bool shared, Fd& out) {
  if (is_cut(file)) return {EINVAL, "open", file};
  for (;;) {
    Fd fd(open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd.ok()) return {errno, "open", file};
    if (flock(fd.get(), (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) return {};
      if (errno == EINTR) continue;
      return {errno, "flock", file};
    }
    // An admin may have cleaned the folder between open and flock: then this is a lock on nothing.
    struct stat held {};
    struct stat named {};
    if (fstat(fd.get(), &held) == 0 && stat(file.c_str(), &named) == 0 && held.st_ino == named.st_ino &&
        held.st_dev == named.st_dev) {
      out = std::move(fd);
      return {};
    }
  }
}

}  // namespace hostdev
