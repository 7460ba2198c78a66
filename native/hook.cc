#include "hook.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "fd.h"
#include "hook_conf.h"
#include "hook_xml.h"
#include "root_fs.h"

// linux/close_range.h is not in every libc's headers.
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2U)
#endif

namespace hostdev {

namespace {

constexpr size_t kMaxXml = size_t{16} * 1024 * 1024;
constexpr size_t kMaxStderr = 8192;
// Where node finds the domain's lock held open; any number above the standard three and below what node opens
// itself would do.
constexpr int kLockFd = 9;
// Of the deadline: node is told the first share, asked to stop (it undoes) at the second, and left behind at
// the end.
constexpr double kNodeShare = 0.85;
constexpr double kStopShare = 0.95;
constexpr int kExecFailed = 127;

struct Call {
  std::string name;
  std::string operation;
  std::string sub_operation;
  std::string extra;

  [[nodiscard]] bool may_fail() const { return operation == "prepare" || operation == "start"; }
  [[nodiscard]] bool is_of_interest() const { return may_fail() || operation == "release"; }
};

double now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return text;
}

void say(const std::string& text) {
  size_t at = 0;
  while (at < text.size()) {
    const ssize_t n = write(STDERR_FILENO, text.data() + at, text.size() - at);
    if (n <= 0) return;
    at += static_cast<size_t>(n);
  }
}

// The one line that virsh shows, and the exit code: a guest is stopped only where libvirt can still stop it
// cleanly.
int refuse(const Call& call, const std::string& why) {
  if (!call.may_fail()) return 0;
  say("hostdev: " + call.operation + " of domain '" + printable(call.name) + "' was stopped: " + why + "\n");
  return 1;
}

std::string error_text(int error) {
  const char* text = strerrordesc_np(error);
  return text == nullptr ? "errno " + std::to_string(error) : text;
}

std::string state_dir(const HookConf& conf) {
  return (conf.root == "/" ? "" : conf.root) + "/run/hostdev";
}

bool has_bindings(const HookConf& conf) {
  Fd dir(open((state_dir(conf) + "/bindings").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  std::vector<std::string> names;
  if (!dir.ok() || read_names(dir.get(), {}, names)) return false;
  return std::any_of(names.begin(), names.end(), [](const std::string& n) {
    return n.size() > 5 && n.compare(n.size() - 5, 5, ".json") == 0;
  });
}

// The lock's file, its folders made. Not to be had (a read-only /run) is no reason to stop here: node says it
// better.
Fd open_domain_lock(const HookConf& conf, const std::string& uuid) {
  if (uuid.empty()) return {};
  const std::string state = state_dir(conf);
  for (const auto& folder : {state, state + "/lock"}) mkdir(folder.c_str(), 0700);
  return Fd(open((state + "/lock/domain-" + uuid).c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
}

struct Child {
  const Call& call;
  const HookConf& conf;
  std::string uuid;
  int xml;
  int errors;
  int status;
  double started;
  // All the time there is, in seconds.
  double deadline;
};

[[noreturn]] void fail_in_child(const Child& child) {
  const int error = errno;
  (void)!write(child.status, &error, sizeof error);
  _exit(kExecFailed);
}

// Becomes node. Nothing of libvirt's may stay open, whatever it left without close-on-exec.
[[noreturn]] void become_node(const Child& child) {
  setsid();
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  Fd lock = open_domain_lock(child.conf, child.uuid);
  if (dup2(child.xml, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0) fail_in_child(child);
  if (dup2(child.errors >= 0 ? child.errors : null, STDERR_FILENO) < 0) fail_in_child(child);
  syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC);
  bool locked = false;
  if (lock.ok()) {
    int got = flock(lock.get(), LOCK_EX);
    while (got != 0 && errno == EINTR) got = flock(lock.get(), LOCK_EX);
    // Without close-on-exec node keeps the lock until it ends, without knowing of it. The lock may have that
    // number already, and then dup2 does nothing at all.
    locked = got == 0 && dup2(lock.get(), kLockFd) == kLockFd && fcntl(kLockFd, F_SETFD, 0) == 0;
  }
  struct sigaction by_default {};
  by_default.sa_handler = SIG_DFL;
  sigaction(SIGPIPE, &by_default, nullptr);
  const double left = child.deadline - (now() - child.started);
  const std::string ms = std::to_string(static_cast<long>(std::max(0.0, left * kNodeShare * 1000)));
  std::vector<std::string> words = {child.conf.node, child.conf.cli};
  if (child.conf.root != "/") words.insert(words.end(), {"--root", child.conf.root});
  words.insert(words.end(), {"hook", "run", "--deadline-ms", ms, "--", child.call.name, child.call.operation,
                             child.call.sub_operation, child.call.extra});
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (auto& w : words) argv.push_back(w.data());
  argv.push_back(nullptr);
  if (locked) setenv("HOSTDEV_HOOK_UUID", child.uuid.c_str(), 1);
  execv(argv[0], argv.data());
  fail_in_child(child);
}

void keep_tail(std::string& text, const char* bytes, size_t size) {
  text.append(bytes, size);
  if (text.size() > kMaxStderr) text.erase(0, text.size() - kMaxStderr);
}

struct Outcome {
  bool ended = false;
  int exec_error = 0;
  siginfo_t info{};
  std::string errors;
};

// Waits until the child has ended or `until` has come; collects what it says. Never waits for a child that
// cannot die.
void await_child(int pidfd, int errors, int status, double until, Outcome& out) {
  while (!out.ended) {
    std::array<pollfd, 3> fds = {{{pidfd, POLLIN, 0}, {errors, POLLIN, 0}, {status, POLLIN, 0}}};
    const double left = until - now();
    if (left <= 0) return;
    const int ready = poll(fds.data(), fds.size(), static_cast<int>(left * 1000) + 1);
    if (ready < 0 && errno != EINTR) return;
    if (ready <= 0) continue;
    std::array<char, 4096> chunk;
    if (fds[1].revents != 0) {
      const ssize_t n = read(errors, chunk.data(), chunk.size());
      if (n > 0) keep_tail(out.errors, chunk.data(), static_cast<size_t>(n));
      // At its end it is always readable: no longer of interest.
      if (n == 0) errors = -1;
    }
    if (fds[2].revents != 0) {
      if (read(status, &out.exec_error, sizeof out.exec_error) != static_cast<ssize_t>(sizeof out.exec_error))
        status = -1;
    }
    if (fds[0].revents != 0) {
      out.ended = waitid(P_PIDFD, static_cast<id_t>(pidfd), &out.info, WEXITED | WNOHANG) == 0 &&
                  out.info.si_pid != 0;
      for (ssize_t n = 1; errors >= 0 && n > 0;) {
        n = read(errors, chunk.data(), chunk.size());
        if (n > 0) keep_tail(out.errors, chunk.data(), static_cast<size_t>(n));
      }
    }
  }
}

int judge(const Call& call, const HookConf& conf, const Outcome& out) {
  if (out.exec_error != 0) {
    return refuse(call, conf.node + " could not be started (" + error_text(out.exec_error) +
                            "); install nodejs again, or run 'hostdev hook remove'");
  }
  if (!out.ended) {
    const double patience = call.operation == "start" ? conf.start_deadline : conf.prepare_deadline;
    return refuse(call, "no answer within " + std::to_string(static_cast<int>(patience)) +
                            " s; 'hostdev status' says what is left");
  }
  if (out.info.si_code != CLD_EXITED) {
    return refuse(call, conf.node + " was killed by signal " + std::to_string(out.info.si_status) +
                            " (out of memory?); 'hostdev status' says what is left");
  }
  if (out.info.si_status == 0 || !call.may_fail()) return 0;
  std::string text = out.errors;
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  if (text.empty()) {
    return refuse(call, conf.node + " ended with exit code " + std::to_string(out.info.si_status) +
                            " and said nothing");
  }
  say(text + "\n");
  return 1;
}

int start_node(const Call& call, const HookConf& conf, const std::string& xml) {
  const double started = now();
  std::array<int, 2> errors = {-1, -1};
  std::array<int, 2> status = {-1, -1};
  const Fd memory(memfd_create("domain.xml", MFD_CLOEXEC));
  if (!memory.ok() || write(memory.get(), xml.data(), xml.size()) != static_cast<ssize_t>(xml.size()) ||
      lseek(memory.get(), 0, SEEK_SET) != 0 || pipe2(errors.data(), O_CLOEXEC) != 0 ||
      pipe2(status.data(), O_CLOEXEC) != 0) {
    return refuse(call, "no memory or descriptors (" + error_text(errno) + ")");
  }
  const Fd errors_in(errors[0]);
  // What node leaves in the background may hold the other end: what is there is read, its end is not waited
  // for.
  fcntl(errors_in.get(), F_SETFL, O_NONBLOCK);
  Fd errors_out(errors[1]);
  const Fd status_in(status[0]);
  Fd status_out(status[1]);
  const double patience = call.operation == "prepare" ? conf.prepare_deadline
                          : call.operation == "start" ? conf.start_deadline
                                                      : conf.other_deadline;
  // A release goes on after libvirt was answered, and then has as long as a prepare.
  const Child child = {call,
                       conf,
                       domain_uuid(xml),
                       memory.get(),
                       call.may_fail() ? errors_out.get() : -1,
                       status_out.get(),
                       started,
                       call.may_fail() ? patience : conf.prepare_deadline};
  const pid_t pid = fork();
  if (pid < 0) return refuse(call, "no process could be made (" + error_text(errno) + ")");
  if (pid == 0) become_node(child);
  errors_out.reset();
  status_out.reset();
  const Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0U)));
  Outcome out;
  await_child(pidfd.get(), errors_in.get(), status_in.get(),
              started + patience * (call.may_fail() ? kStopShare : 1), out);
  if (!out.ended && call.may_fail()) {
    kill(pid, SIGTERM);
    await_child(pidfd.get(), errors_in.get(), status_in.get(), started + patience, out);
    if (!out.ended) kill(pid, SIGKILL);
  }
  return judge(call, conf, out);
}

// True when stdin ended within the bound.
bool read_stdin(std::string& xml) {
  std::array<char, 65536> chunk;
  for (;;) {
    const ssize_t n = read(STDIN_FILENO, chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return true;
    xml.append(chunk.data(), static_cast<size_t>(n));
    if (xml.size() > kMaxXml) return false;
  }
}

}  // namespace

int run_hook(int argc, char** argv) {
  std::string conf_file;
  if (argc == 6 && strcmp(argv[0], "--conf") == 0) {
    conf_file = argv[1];
    argc -= 2;
    argv += 2;
  }
  if (argc != 4) return 0;
  const Call call = {argv[0], argv[1], argv[2], argv[3]};
  if (!call.is_of_interest()) return 0;
  // A reader of stderr that is gone must not turn an answer into a signal.
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, nullptr);
  std::string xml;
  if (!read_stdin(xml)) return may_take_devices(xml) ? refuse(call, "its XML is larger than 16 MiB") : 0;
  // Without an entry in the books a release has nothing to give back; with one, it may concern a device that
  // the XML no longer lists.
  if (call.may_fail() && !may_take_devices(xml)) return 0;
  const auto conf = read_hook_conf(conf_file);
  if (!call.may_fail() && !has_bindings(conf)) return 0;
  if (!conf.found || conf.node.empty() || conf.cli.empty()) {
    return refuse(call, conf.file + (conf.found ? " names no node= and cli=" : " is not there") +
                            "; run 'hostdev hook install'");
  }
  return start_node(call, conf, xml);
}

}  // namespace hostdev
