// Accesses to files below a root that no symbolic link can lead out of: a simulated host, or one unpacked
// from somebody's dump, may hold links to /etc. Every function returns 0 or fills in a Failure; none throws.
#pragma once

#include <string>
#include <vector>

#include "fd.h"

namespace hostdev {

// An errno with the call and the path (relative to the root) that it came from.
struct Failure {
  int error = 0;
  const char* syscall = "";
  std::string path;

  explicit operator bool() const { return error != 0; }
};

// Opens the root itself: O_PATH, a folder.
Failure open_root(const std::string& root, Fd& out);

// openat2(2) with RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS (Linux 5.6).
Failure open_in_root(int root, const std::string& path, int flags, Fd& out);

// At most `max` bytes; EFBIG when there are more and `truncate` is not asked for.
Failure read_all(int fd, const std::string& path, size_t max, bool truncate, std::string& out);

// Text of a link; `at` is a folder's descriptor and `name` one component below it, or empty when `at` is the
// link.
Failure read_link_at(int at, const char* name, const std::string& path, std::string& out);

// Names in a folder, unsorted, without . and ..
Failure read_names(int fd, const std::string& path, std::vector<std::string>& out);

}  // namespace hostdev
