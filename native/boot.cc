#include "boot.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <exception>
#include <string>

#include "boot_cmdline.h"
#include "boot_judge.h"
#include "boot_move.h"
#include "boot_report.h"
#include "boot_sysfs.h"
#include "boot_table.h"

namespace hostdev {

namespace {

constexpr auto kTable = "var/lib/hostdev/boot.table";
constexpr size_t kMaxCmdline = size_t{64} * 1024;
// A boot waits no longer for us.
constexpr int kDeadlineMs = 30'000;
constexpr auto kUsage = "usage: hostdev-native boot [--root DIR]\n";

Failure read_text(const Root& root, const std::string& path, size_t max, std::string& text) {
  Fd fd;
  if (auto failure = open_in_root(root, path, O_RDONLY | O_NOCTTY | O_NONBLOCK, fd)) return failure;
  return read_all(fd.get(), path, max, false, text);
}

std::string cannot_read(const Failure& failure) {
  return "/" + failure.path + " could not be read (" + strerrordesc_np(failure.error) + ")";
}

// Another root= or resume= than the table knows: what the host stands on this time is not what was looked at.
std::string other_boot(const BootTable& table, const BootCmdline& cmdline) {
  const auto differs = [](const char* word, const std::string& now, const std::string& then) {
    return now == then ? std::string()
                       : std::string(word) + "= is not what it was when the table was written (" +
                             (then.empty() ? "none" : then) + ")";
  };
  const std::string root = differs("root", cmdline.root, table.root);
  return root.empty() ? differs("resume", cmdline.resume, table.resume) : root;
}

// `table` must outlive the report.
EarlyReport bind_early(const Root& root, BootTable& table) {
  EarlyReport report;
  std::string text;
  if (auto failure = read_text(root, "proc/cmdline", kMaxCmdline, text)) {
    // Whether we are switched off is not to be known.
    report.problem = cannot_read(failure);
    return report;
  }
  const BootCmdline cmdline = read_boot_cmdline(text);
  report.off = cmdline.off;
  if (cmdline.off) {
    report.problem = "hostdev.off=1 is on the kernel command line";
    return report;
  }
  if (auto failure = read_text(root, kTable, kMaxTable, text)) {
    report.problem = cannot_read(failure);
    return report;
  }
  if (const std::string why = read_table(text, table); !why.empty()) {
    report.problem = "/" + std::string(kTable) + " " + why;
    return report;
  }
  report.table = table.hash;
  report.problem = other_boot(table, cmdline);
  if (!report.problem.empty()) return report;
  std::map<std::string, std::string> address_by_path;
  if (auto failure = slot_paths(root, address_by_path)) {
    report.problem = cannot_read(failure);
    return report;
  }
  report.devices = judge_devices(root, table, cmdline, address_by_path);
  move_devices(root, report.devices);
  return report;
}

int run_child(const std::string& root_path) {
  Root root;
  if (open_root(root_path, root)) return 1;
  BootTable table;
  EarlyReport report;
  try {
    report = bind_early(root, table);
  } catch (const std::exception& e) {
    report.problem = e.what();
  }
  leave_report(root, root_path, report);
  return 0;
}

// Says what the child cannot say any more.
void tell_end(const std::string& root_path, const std::string& problem) {
  Root root;
  if (open_root(root_path, root)) return;
  EarlyReport report;
  report.problem = problem;
  leave_report(root, root_path, report);
}

void await_child(pid_t child, const std::string& root_path) {
  const Fd handle(static_cast<int>(syscall(SYS_pidfd_open, child, 0U)));
  pollfd ended{handle.get(), POLLIN, 0};
  int ready = 0;
  do {
    ready = poll(&ended, 1, kDeadlineMs);
  } while (ready < 0 && errno == EINTR);
  if (ready == 0) {
    kill(child, SIGKILL);
    tell_end(root_path, "the boot binder did not end in time: a device hangs");
    return;
  }
  int status = 0;
  if (waitpid(child, &status, 0) == child && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
    tell_end(root_path, "the boot binder failed");
}

}  // namespace

int run_boot(int argc, char** argv) {
  std::string root_path = "/";
  if (argc == 2 && strcmp(argv[0], "--root") == 0) {
    root_path = argv[1];
  } else if (argc != 0) {
    (void)!write(STDERR_FILENO, kUsage, strlen(kUsage));
    return 2;
  }
  const pid_t child = fork();
  if (child == 0) _exit(run_child(root_path));
  if (child > 0) await_child(child, root_path);
  return 0;
}

}  // namespace hostdev
