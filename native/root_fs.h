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

// The folder that paths hang below. On the machine's own root there is nothing to be kept in.
struct Root {
  Fd fd;
  bool is_real = false;
};

// Whether a call of the kernel would take only the part before a NUL: another file than the one that was
// named.
[[nodiscard]] inline bool is_cut(const std::string& path) {
  return path.find('\0') != std::string::npos;
}

// Opens the root itself: O_PATH, a folder.
Failure open_root(const std::string& root, Root& out);

// The same for a descriptor that somebody else has opened.
Root root_of(Fd fd);

// Opens what `path` names below the root, links followed, none of them out of it. On the real root it is
// plain openat(2). Elsewhere openat2(2) with RESOLVE_IN_ROOT, which answers EAGAIN whenever anybody renames
// or mounts anything on the machine during the walk (fs/namei.c handle_dots): then the path is walked by
// hand, where no ".." ever reaches the kernel.
Failure open_in_root(const Root& root, const std::string& path, int flags, Fd& out);

// At most `max` bytes; EFBIG when there are more and `truncate` is not asked for.
Failure read_all(int fd, const std::string& path, size_t max, bool truncate, std::string& out);

// Text of a link; `at` is a folder's descriptor and `name` one component below it, or empty when `at` is the
// link.
Failure read_link_at(int at, const char* name, const std::string& path, std::string& out);

// Names in a folder, unsorted, without . and ..
Failure read_names(int fd, const std::string& path, std::vector<std::string>& out);

}  // namespace hostdev
