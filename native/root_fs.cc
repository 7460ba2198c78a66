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
#include <ctime>
#include <memory>

#include "monotonic.h"

namespace hostdev {

namespace {

constexpr int kMaxLinks = 40;
// A file system may answer EAGAIN by itself; it gets so long to think better of it.
constexpr double kAgainSeconds = 2;
constexpr long kPauseNs = 2'000'000;

int openat2_call(int at, const char* path, uint64_t flags) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  return static_cast<int>(syscall(SYS_openat2, at, path, &how, sizeof how));
}

void push_parts(const std::string& path, std::vector<std::string>& todo) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    if (end > at) parts.push_back(path.substr(at, end - at));
    at = end + 1;
  }
  // What ends in a slash is a folder, links followed whatever was asked for: as "." behind it would have it.
  if (path.ends_with('/')) parts.emplace_back(".");
  todo.insert(todo.end(), parts.rbegin(), parts.rend());
}

// What openat2 with RESOLVE_IN_ROOT does, one component at a time: the way back up is the descriptors of the
// way down, so nothing that moves meanwhile leads out. -1 with errno.
int walk(int root, const std::string& path, int flags) {
  std::vector<std::string> todo;
  push_parts(path, todo);
  std::vector<Fd> way;
  int links = 0;
  const auto here = [&] { return way.empty() ? root : way.back().get(); };
  while (!todo.empty()) {
    const std::string part = std::move(todo.back());
    todo.pop_back();
    if (part == ".") continue;
    if (part == "..") {
      if (!way.empty()) way.pop_back();
      continue;
    }
    const bool last = todo.empty();
    if (last && (flags & O_NOFOLLOW) != 0) return openat(here(), part.c_str(), flags | O_CLOEXEC);
    Fd next(openat(here(), part.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat is {};
    if (!next.ok() || fstat(next.get(), &is) != 0) return -1;
    if (S_ISLNK(is.st_mode)) {
      std::string target;
      if (++links > kMaxLinks) {
        errno = ELOOP;
        return -1;
      }
      if (const auto failure = read_link_at(next.get(), "", path, target)) {
        errno = failure.error;
        return -1;
      }
      if (target[0] == '/') way.clear();
      push_parts(target, todo);
    } else if (last) {
      return openat(here(), part.c_str(), flags | O_NOFOLLOW | O_CLOEXEC);
    } else {
      way.push_back(std::move(next));
    }
  }
  return openat(here(), ".", flags | O_CLOEXEC);
}

struct CloseDir {
  void operator()(DIR* dir) const { closedir(dir); }
};

}  // namespace

Failure open_root(const std::string& root, Root& out) {
  if (is_cut(root)) return {EINVAL, "open", root};
  Fd fd(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd.ok()) return {errno, "open", root};
  out = {std::move(fd), root == "/"};
  return {};
}

Root root_of(Fd fd) {
  struct stat is {};
  struct stat real {};
  const bool same = fstat(fd.get(), &is) == 0 && stat("/", &real) == 0 && is.st_ino == real.st_ino &&
                    is.st_dev == real.st_dev;
  return {std::move(fd), same};
}

Failure open_in_root(const Root& root, const std::string& path, int flags, Fd& out) {
  if (is_cut(path)) return {EINVAL, "openat2", path};
  const int at = root.fd.get();
  if (root.is_real) {
    out = Fd(openat(at, path.c_str(), flags | O_CLOEXEC));
    if (!out.ok()) return {errno, "openat", path};
    return {};
  }
  out = Fd(openat2_call(at, path.c_str(), static_cast<uint64_t>(flags)));
  if (out.ok() || errno != EAGAIN) return out.ok() ? Failure{} : Failure{errno, "openat2", path};
  for (const double until = monotonic_seconds() + kAgainSeconds;;) {
    out = Fd(walk(at, path, flags));
    if (out.ok()) return {};
    if (errno != EAGAIN || monotonic_seconds() > until) return {errno, "openat", path};
    const timespec pause = {0, kPauseNs};
    nanosleep(&pause, nullptr);
  }
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
