#include "hook_child.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "fd.h"
#include "monotonic.h"
#include "state_dir.h"

namespace hostdev {

namespace {

constexpr size_t kMaxStderr = 8192;
// Above the standard three; node opens its own wherever there is room.
constexpr int kStatusFd = 8;
constexpr int kLockFd = 9;
// Of the time: node is told the first share (what it undoes comes after that), asked to stop at the second,
// and left behind at the end.
constexpr double kNodeShare = 0.8;
constexpr double kStopShare = 0.9;
constexpr int kExecFailed = 127;
// On the status pipe, beside the errno of a failed exec.
constexpr int kWaitsForLock = -1;
constexpr int kHasLock = -2;

// The lock's file, its folders made. Not to be had (a read-only /run) is no reason to stop here: node says it
// better.
Fd open_domain_lock(const std::string& root, const std::string& uuid) {
  if (uuid.empty()) return {};
  const Fd folder = open_state(root, "lock", true);
  if (!folder.ok()) return {};
  const std::string name = "domain-" + uuid;
  return Fd(openat(folder.get(), name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
}

// close_range(2) is Linux 5.9; its flag that would set close-on-exec instead is 5.11, so it is done without.
void close_all(unsigned first, unsigned last) {
  if (syscall(SYS_close_range, first, last, 0U) == 0) return;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = 1024;
  const auto end =
      std::min({static_cast<unsigned long>(last) + 1, static_cast<unsigned long>(limit.rlim_cur), 1048576UL});
  for (unsigned long fd = first; fd < end; ++fd) close(static_cast<int>(fd));
}

void tell(int what) {
  (void)!write(kStatusFd, &what, sizeof what);
}

[[noreturn]] void fail_in_child() {
  tell(errno);
  _exit(kExecFailed);
}

// Puts `from` at the number `to`, where neither is in the other's way: numbers below 10 are moved up first.
int move_up(int from) {
  return from < 0 ? -1 : fcntl(from, F_DUPFD_CLOEXEC, kLockFd + 1);
}

void set_handler(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  sigaction(signal, &action, nullptr);
}

// Waits for the lock at kLockFd, at most `seconds`; false when it was not to be had. The timer goes off again
// and again: once only, and it might go off just before the wait begins.
bool lock_within(double seconds) {
  if (flock(kLockFd, LOCK_EX | LOCK_NB) == 0) return true;
  tell(kWaitsForLock);
  set_handler(SIGALRM, [](int) {});
  constexpr suseconds_t kTick = 100000;
  const itimerval tick = {{0, kTick}, {0, kTick}};
  setitimer(ITIMER_REAL, &tick, nullptr);
  const double until = monotonic_seconds() + seconds;
  int got = flock(kLockFd, LOCK_EX);
  while (got != 0 && errno == EINTR && monotonic_seconds() < until) got = flock(kLockFd, LOCK_EX);
  // A timer outlives exec, and would kill node.
  const itimerval off{};
  setitimer(ITIMER_REAL, &off, nullptr);
  set_handler(SIGALRM, SIG_DFL);
  if (got == 0) tell(kHasLock);
  return got == 0;
}

// Whoever starts libvirtd may have NODE_OPTIONS for something else: none of it is for this program.
void forget_node_variables() {
  std::vector<std::string> names;
  for (char** line = environ; line != nullptr && *line != nullptr; ++line) {
    const std::string_view text(*line);
    if (text.starts_with("NODE_")) names.emplace_back(text.substr(0, text.find('=')));
  }
  for (const auto& name : names) unsetenv(name.c_str());
}

// Becomes node. Nothing of libvirt's may stay open, whatever it left without close-on-exec.
[[noreturn]] void become_node(const ChildJob& job, pid_t client, int xml, int errors, int status) {
  setsid();
  // A prepare that nobody waits for any more must not bind behind libvirt's back.
  if (job.may_fail && (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != client)) _exit(kExecFailed);
  // A child that is left behind must not keep a file system from being unmounted.
  (void)!chdir("/");
  const int up = move_up(status);
  const int lock = move_up(open_domain_lock(job.root, job.uuid).release());
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  dup2(xml, STDIN_FILENO);
  dup2(null, STDOUT_FILENO);
  dup2(errors >= 0 ? errors : null, STDERR_FILENO);
  dup3(up, kStatusFd, O_CLOEXEC);
  if (lock >= 0) dup2(lock, kLockFd);
  close_all(STDERR_FILENO + 1, kStatusFd - 1);
  close_all(lock >= 0 ? kLockFd + 1 : kLockFd, ~0U);
  // libvirt's own, or those of whoever calls the hook by hand, are not node's: a SIGTERM that is blocked
  // would never ask it to undo.
  for (const int signal : {SIGPIPE, SIGTERM, SIGINT, SIGHUP, SIGALRM}) set_handler(signal, SIG_DFL);
  sigset_t none{};
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);

  const bool locked = lock >= 0 && lock_within(job.node_patience);
  // A release that had to wait starts counting now: nobody waits for it any more.
  const double from = job.may_fail ? job.started : monotonic_seconds();
  const double left = (from + job.node_patience - monotonic_seconds()) * kNodeShare;
  const std::string ms = std::to_string(static_cast<long>(std::max(0.0, left * 1000)));
  std::vector<std::string> words = {job.program, job.cli};
  if (job.root != "/") words.insert(words.end(), {"--root", job.root});
  // A domain may be called --root: its words come after the end of all options.
  words.insert(words.end(), {"hook", "run", "--deadline-ms", ms, "--", job.name, job.operation,
                             job.sub_operation, job.extra});
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (auto& w : words) argv.push_back(w.data());
  argv.push_back(nullptr);
  forget_node_variables();
  // Without the lock node waits for it itself, and logs that it was not to be had.
  unsetenv("HOSTDEV_HOOK_UUID");
  setenv("HOSTDEV_HOOK_CALLER", std::to_string(job.caller).c_str(), 1);
  if (locked) setenv("HOSTDEV_HOOK_UUID", job.uuid.c_str(), 1);
  execv(argv[0], argv.data());
  fail_in_child();
}

class Waiting {
 public:
  Waiting(int pidfd, int errors, int status, int caller)
      : pidfd_(pidfd), errors_(errors), status_(status), caller_(caller) {}

  // Until the child has ended, `until` has come, or the caller has ended, which is told once; true when the
  // child has ended.
  bool wait(double until, ChildOutcome& out) {
    while (!ended_) {
      const double left = until - monotonic_seconds();
      if (left <= 0) return false;
      std::array<pollfd, 4> fds = {
          {{pidfd_, POLLIN, 0}, {errors_, POLLIN, 0}, {status_, POLLIN, 0}, {caller_, POLLIN, 0}}};
      const int ready = poll(fds.data(), fds.size(), static_cast<int>(left * 1000) + 1);
      if (ready < 0 && errno != EINTR) return false;
      if (ready <= 0) continue;
      if (fds[1].revents != 0) read_errors(out);
      if (fds[2].revents != 0) read_status(out);
      if (fds[0].revents != 0) read_end(out);
      if (fds[3].revents != 0 && !ended_) {
        caller_ = -1;
        return false;
      }
    }
    return true;
  }

 private:
  // All that is there: the other end may be held by something that node left running, so its end is not
  // awaited.
  void read_errors(ChildOutcome& out) {
    std::array<char, 4096> chunk;
    for (ssize_t n = 1; errors_ >= 0 && n > 0;) {
      n = read(errors_, chunk.data(), chunk.size());
      if (n > 0) out.errors.append(chunk.data(), static_cast<size_t>(n));
      // At its end it is always readable: no longer of interest.
      if (n == 0) errors_ = -1;
      if (out.errors.size() > kMaxStderr) out.errors.erase(0, out.errors.size() - kMaxStderr);
    }
  }

  void read_status(ChildOutcome& out) {
    int what = 0;
    if (read(status_, &what, sizeof what) != static_cast<ssize_t>(sizeof what)) {
      status_ = -1;
    } else if (what > 0) {
      out.end = ChildOutcome::End::kNotStarted;
      out.code = what;
    } else {
      out.waited_for_lock = what == kWaitsForLock;
    }
  }

  void read_end(ChildOutcome& out) {
    siginfo_t info{};
    ended_ = waitid(P_PIDFD, static_cast<id_t>(pidfd_), &info, WEXITED | WNOHANG) == 0 && info.si_pid != 0;
    if (!ended_) return;
    read_errors(out);
    while (status_ >= 0) read_status(out);
    if (out.end == ChildOutcome::End::kNotStarted) return;
    out.end = info.si_code == CLD_EXITED ? ChildOutcome::End::kExited : ChildOutcome::End::kSignalled;
    out.code = info.si_status;
  }

  int pidfd_;
  int errors_;
  int status_;
  int caller_;
  bool ended_ = false;
};

// The XML, to be read from its beginning; -1 with errno. A kernel older than 6.3 does not know the flag
// without which a hardened one (vm.memfd_noexec=2) refuses.
int memory_file(const std::string& bytes) {
  constexpr unsigned kNoExecSeal = 8;
  int fd = memfd_create("domain.xml", MFD_CLOEXEC | kNoExecSeal);
  if (fd < 0 && errno == EINVAL) fd = memfd_create("domain.xml", MFD_CLOEXEC);
  Fd file(fd);
  if (!file.ok() || write(file.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()) ||
      lseek(file.get(), 0, SEEK_SET) != 0) {
    return -1;
  }
  return file.release();
}

ChildOutcome no_process(int error) {
  ChildOutcome out;
  out.end = ChildOutcome::End::kNoProcess;
  out.code = error;
  return out;
}

struct Pipe {
  Fd in;
  Fd out;
  bool open() {
    std::array<int, 2> ends = {-1, -1};
    if (pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) return false;
    in = Fd(ends[0]);
    out = Fd(ends[1]);
    return true;
  }
};

// What is opened later must not become 0, 1 or 2 where the caller left one of these closed.
void fill_standard_three() {
  for (;;) {
    Fd fd(open("/dev/null", O_RDWR | O_CLOEXEC));
    if (!fd.ok() || fd.get() > STDERR_FILENO) return;
    // Stays open as long as the process.
    (void)fd.release();
  }
}

}  // namespace

ChildOutcome run_child(const ChildJob& job) {
  fill_standard_three();
  const pid_t client = getpid();
  // Ignored (and that is inherited), the kernel would reap the child itself and keep its exit code from us.
  set_handler(SIGCHLD, SIG_DFL);
  const Fd memory(memory_file(job.xml));
  Pipe errors;
  Pipe status;
  if (!memory.ok() || !errors.open() || !status.open()) return no_process(errno);
  // Only our end is not to wait: node's writes do.
  fcntl(errors.out.get(), F_SETFL, 0);
  const pid_t pid = fork();
  if (pid < 0) return no_process(errno);
  if (pid == 0)
    become_node(job, client, memory.get(), job.may_fail ? errors.out.get() : -1, status.out.get());
  errors.out.reset();
  status.out.reset();
  const Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0U)));
  if (!pidfd.ok()) {
    const int error = errno;
    if (job.may_fail) kill(pid, SIGTERM);
    return no_process(error);
  }
  ChildOutcome out;
  const Fd caller(job.may_fail ? static_cast<int>(syscall(SYS_pidfd_open, job.caller, 0U)) : -1);
  Waiting child(pidfd.get(), errors.in.get(), status.in.get(), caller.get());
  if (child.wait(job.started + job.patience * (job.may_fail ? kStopShare : 1), out) || !job.may_fail)
    return out;
  kill(pid, SIGTERM);
  const bool ended = child.wait(job.started + job.patience, out);
  if (!ended) kill(pid, SIGKILL);
  // It has answered after all when it ended by itself with a word; killed by our own signal it has not.
  const bool answered =
      ended && out.end == ChildOutcome::End::kExited && (out.code == 0 || !out.errors.empty());
  if (!answered && out.end != ChildOutcome::End::kNotStarted) out.end = ChildOutcome::End::kOverdue;
  return out;
}

}  // namespace hostdev
