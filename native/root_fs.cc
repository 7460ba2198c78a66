#include "root_fs.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

namespace hostdev {

namespace {

int openat2_call(int at, const char* path, uint64_t flags) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  // EAGAIN: a rename or mount raced with the walk; the kernel asks to try again (openat2(2)).
  for (int tries = 0; tries < 16; ++tries) {
    const long fd = syscall(SYS_openat2, at, path, &how, sizeof how);
    if (fd >= 0 || errno != EAGAIN) return static_cast<int>(fd);
  }
  return -1;
}

struct CloseDir {
  void operator()(DIR* dir) const { closedir(dir); }
};

}  // namespace

Failure open_root(const std::string& root, Fd& out) {
  out = Fd(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!out.ok()) return {errno, "open", root};
  return {};
}

Failure open_in_root(int root, const std::string& path, int flags, Fd& out) {
  // The kernel would take what is before the NUL for the whole of it: another file.
  if (path.find('\0') != std::string::npos) return {EINVAL, "openat2", path};
  out = Fd(openat2_call(root, path.c_str(), static_cast<uint64_t>(flags)));
  if (!out.ok()) return {errno, "openat2", path};
  return {};
}

Failure read_all(int fd, const std::string& path, size_t max, bool truncate, std::string& out) {
  out.clear();
  std::array<char, 65536> chunk;
  // One byte more than allowed tells a file that is exactly full from one that is too large.
  const size_t limit = truncate ? max : max + 1;
  // pci.ids and modules.alias are a megabyte each: grown bit by bit, they would be copied twice over.
  struct stat status {};
  if (limit > chunk.size() && fstat(fd, &status) == 0 && status.st_size > 0) {
    out.reserve(std::min(limit, static_cast<size_t>(status.st_size) + 1));
  }
  while (out.size() < limit) {
    const size_t want = limit - out.size() < chunk.size() ? limit - out.size() : chunk.size();
    const ssize_t n = read(fd, chunk.data(), want);
    if (n < 0) {
      if (errno == EINTR) continue;
      return {errno, "read", path};
    }
    if (n == 0) break;
    out.append(chunk.data(), static_cast<size_t>(n));
    // An attribute of sysfs is whole after a short read; asking for its end again would make the kernel print
    // it again.
    if (truncate && static_cast<size_t>(n) < want) break;
  }
  if (out.size() > max) return {EFBIG, "read", path};
  return {};
}

Failure read_link_at(int at, const char* name, const std::string& path, std::string& out) {
  std::array<char, 4096> text;
  const ssize_t n = readlinkat(at, name, text.data(), text.size());
  if (n < 0) {
    // readlinkat on an O_PATH descriptor of something else answers ENOENT or EINVAL; the latter is clearer.
    return {errno, "readlinkat", path};
  }
  out.assign(text.data(), static_cast<size_t>(n));
  return {};
}

Failure read_names(int fd, const std::string& path, std::vector<std::string>& out) {
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return {errno, "fcntl", path};
  const std::unique_ptr<DIR, CloseDir> dir(fdopendir(copy));
  if (!dir) {
    const int error = errno;
    close(copy);
    return {error, "fdopendir", path};
  }
  for (;;) {
    errno = 0;
    // Each DIR is used by one thread only, which is what readdir(3) asks for.
    const dirent* entry = readdir(dir.get());  // NOLINT(concurrency-mt-unsafe)
    if (entry == nullptr) {
      if (errno != 0) return {errno, "readdir", path};
      return {};
    }
    const char* name = static_cast<const char*>(entry->d_name);
    if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) out.emplace_back(name);
  }
}

}  // namespace hostdev
