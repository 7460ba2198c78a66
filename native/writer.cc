#include "writer.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <string>
#include <system_error>

#include "frame.h"
#include "netlink.h"
#include "root_fs.h"

namespace hostdev {

namespace {

constexpr int kRootFd = 3;
constexpr size_t kPage = 4096;

bool read_fully(char* to, size_t size) {
  while (size > 0) {
    const ssize_t n = read(STDIN_FILENO, to, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    to += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

bool write_fully(const std::string& bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    const ssize_t n = write(STDOUT_FILENO, bytes.data() + at, bytes.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += static_cast<size_t>(n);
  }
  return true;
}

Answer failed(int error, Call call) {
  return {0, error, call, {}};
}

Answer told(const char* bytes) {
  return {0, 0, Call::kNone, bytes};
}

// Exactly one write(2): sysfs acts on each call, and a second one with the rest would be a second order.
Answer write_once(const Root& root, const std::string& path, const std::string& value) {
  Fd fd;
  if (const auto failure = open_in_root(root, path, O_WRONLY | O_NOCTTY, fd))
    return failed(failure.error, Call::kOpen);
  const ssize_t n = write(fd.get(), value.data(), value.size());
  if (n < 0) return failed(errno, Call::kWrite);
  if (static_cast<size_t>(n) != value.size()) return failed(EIO, Call::kWrite);
  // FUSE and network file systems report a failed write here.
  if (close(fd.release()) != 0) return failed(errno, Call::kClose);
  return {};
}

Answer read_page(const Root& root, const std::string& path) {
  Fd fd;
  Answer answer;
  if (const auto failure = open_in_root(root, path, O_RDONLY | O_NOCTTY, fd))
    return failed(failure.error, Call::kOpen);
  // One byte more than a page: what is cut off would be put back cut off.
  if (const auto failure = read_all(fd.get(), path, kPage + 1, true, answer.bytes))
    return failed(failure.error, Call::kRead);
  if (answer.bytes.size() > kPage) return failed(EFBIG, Call::kRead);
  return answer;
}

// For a tree that is no sysfs: there nothing but rewriting the file brings its bytes back.
Answer restore_file(const Root& root, const std::string& path, const std::string& value) {
  Fd fd;
  if (const auto failure = open_in_root(root, path, O_WRONLY | O_NOCTTY, fd))
    return failed(failure.error, Call::kOpen);
  struct statfs fs {};
  if (fstatfs(fd.get(), &fs) != 0) return failed(errno, Call::kTruncate);
  if (fs.f_type == SYSFS_MAGIC) return failed(EPERM, Call::kTruncate);
  if (ftruncate(fd.get(), 0) != 0) return failed(errno, Call::kTruncate);
  const ssize_t n = pwrite(fd.get(), value.data(), value.size(), 0);
  if (n < 0) return failed(errno, Call::kWrite);
  if (static_cast<size_t>(n) != value.size()) return failed(EIO, Call::kWrite);
  if (close(fd.release()) != 0) return failed(errno, Call::kClose);
  return {};
}

// Whether somebody has a block device for himself: "1" or "0". What is no block device is looked at first, by
// a descriptor that opens nothing: opening a FIFO or a tape has effects.
Answer ask_claimed(const Root& root, const std::string& path) {
  Fd fd;
  if (const auto failure = open_in_root(root, path, O_PATH, fd)) return failed(failure.error, Call::kOpen);
  struct stat is {};
  if (fstat(fd.get(), &is) != 0) return failed(errno, Call::kOpen);
  if (!S_ISBLK(is.st_mode)) return told("0");
  // O_NONBLOCK: a drive without a medium answers at once, and its tray stays open.
  Fd disk;
  const auto failure = open_in_root(root, path, O_RDONLY | O_EXCL | O_NONBLOCK | O_NOCTTY, disk);
  if (failure.error == EBUSY) return told("1");
  if (failure && failure.error != ENOMEDIUM) return failed(failure.error, Call::kOpen);
  return told("0");
}

// `path` is the interface's index: the helper knows nothing else of it, and the root has no say. 0: no index.
uint32_t index_of(const std::string& path) {
  uint32_t index = 0;
  const auto [end, error] = std::from_chars(path.data(), path.data() + path.size(), index);
  return error != std::errc{} || end != path.data() + path.size() || index > INT32_MAX ? 0 : index;
}

Answer ask_link(const std::string& path) {
  const uint32_t index = index_of(path);
  if (index == 0) return failed(EINVAL, Call::kNetlink);
  Answer answer;
  answer.error = read_link(index, answer.bytes);
  answer.call = Call::kNetlink;
  return answer;
}

// "1" is up, "0" is down.
Answer set_up(const std::string& path, const std::string& value) {
  const uint32_t index = index_of(path);
  if (index == 0 || (value != "0" && value != "1")) return failed(EINVAL, Call::kNetlinkSet);
  const int error = set_link_up(index, value == "1");
  return error == 0 ? Answer{} : failed(error, Call::kNetlinkSet);
}

Answer serve(const Root& root, const Request& request) {
  switch (request.operation) {
    case 'W':
      return write_once(root, request.path, request.value);
    case 'R':
      return read_page(root, request.path);
    case 'F':
      return restore_file(root, request.path, request.value);
    case 'X':
      return ask_claimed(root, request.path);
    case 'L':
      return ask_link(request.path);
    case 'U':
      return set_up(request.path, request.value);
    default:
      return failed(ENOSYS, Call::kNone);
  }
}

// A signal to the process group (Ctrl-C) is the parent's to act on: it undoes through this process.
void ignore_signals() {
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) sigaction(signal, &ignore, nullptr);
}

// A command that is killed lets go of its locks, and the next one puts right what it left: a request of the
// dead one that was still on its way here must not come after that. False when it is dead already.
bool end_with_parent() {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  pollfd parent{STDIN_FILENO, 0, 0};
  return poll(&parent, 1, 0) == 0;
}

}  // namespace

int run_writer() {
  if (!end_with_parent()) return 0;
  ignore_signals();
  setsid();
  // One that is left behind must not keep a file system from being unmounted.
  (void)!chdir("/");
  syscall(SYS_close_range, static_cast<unsigned>(kRootFd + 1), ~0U, 0U);
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null >= 0) dup2(null, STDERR_FILENO);
  const Root root = root_of(Fd(kRootFd));
  std::array<char, kLargestRequest> body;
  for (;;) {
    std::array<char, kFrameHead> head;
    if (!read_fully(head.data(), head.size())) return 0;
    const size_t size = frame_size({head.data(), head.size()});
    if (size > body.size()) return 2;
    if (!read_fully(body.data(), size)) return 0;
    const auto request = decode_request({body.data(), size});
    if (!request) return 2;
    auto answer = serve(root, *request);
    answer.id = request->id;
    if (!write_fully(encode(answer))) return 0;
  }
}

}  // namespace hostdev
