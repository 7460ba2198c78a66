#include "hook.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "fd.h"
#include "hook_child.h"
#include "hook_conf.h"
#include "hook_stdin.h"
#include "hook_xml.h"
#include "monotonic.h"
#include "root_fs.h"
#include "state_dir.h"

namespace hostdev {

namespace {

// What the last line of a refusal begins with, whoever says it.
constexpr std::string_view kPrefix = "hostdev: ";

struct Call {
  std::string name;
  std::string operation;
  std::string sub_operation;
  std::string extra;

  [[nodiscard]] bool may_fail() const { return operation == "prepare" || operation == "start"; }
  [[nodiscard]] bool is_end() const { return operation == "release" || operation == "stopped"; }
  [[nodiscard]] bool is_of_interest() const { return may_fail() || is_end() || operation == "started"; }
  // How long libvirt is kept waiting, in seconds.
  [[nodiscard]] double patience(const HookConf& conf) const {
    if (operation == "prepare") return conf.prepare_deadline;
    return operation == "start" ? conf.start_deadline : conf.other_deadline;
  }
};

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

// A text between the quotes of JSON; what could break a line is gone already.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : printable(text)) {
    if (c == '"' || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  return out + "\"";
}

// node's log, in its words, for a release that node did not get to: the devices stay where they are, and
// nobody else hears of it.
void log_release(const Call& call, const HookConf& conf, const std::string& why) {
  std::array<char, 32> time{};
  const std::time_t seconds = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  (void)strftime(time.data(), time.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  const std::string line = R"({"time":")" + std::string(time.data()) + R"(","domain":)" + quoted(call.name) +
                           R"(,"operation":)" + quoted(call.operation) + R"(,"error":)" + quoted(why) + "}\n";
  const Fd folder = open_state(conf.root, "", false);
  const Fd fd(openat(folder.get(), "hook.log",
                     O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
  if (fd.ok()) (void)!write(fd.get(), line.data(), line.size());
}

// The one line that virsh shows, and the exit code: a guest is stopped only where libvirt can still stop it
// cleanly.
int refuse(const Call& call, const HookConf& conf, const std::string& why) {
  if (!call.may_fail()) {
    log_release(call, conf, why);
    return 0;
  }
  say(std::string(kPrefix) + call.operation + " of domain '" + printable(call.name) +
      "' was stopped: " + why + "\n");
  return 1;
}

std::string error_text(int error) {
  const char* text = strerrordesc_np(error);
  return text == nullptr ? "errno " + std::to_string(error) : text;
}

std::string seconds_text(double seconds) {
  std::array<char, 32> text;
  const int n = snprintf(text.data(), text.size(), "%g s", seconds);
  return {text.data(), static_cast<size_t>(n)};
}

// What node said, without blank lines at the end, and without what could move a terminal.
std::string last_words(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  std::replace_if(
      text.begin(), text.end(),
      [](unsigned char c) { return (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f; }, '?');
  return text;
}

bool has_files(const HookConf& conf, const char* folder) {
  const Fd dir = open_state(conf.root, folder, false);
  std::vector<std::string> names;
  if (!dir.ok() || read_names(dir.get(), {}, names)) return false;
  return std::any_of(names.begin(), names.end(), [](const std::string& n) {
    return n.size() > 5 && n.compare(n.size() - 5, 5, ".json") == 0;
  });
}

// Whether another call for this guest is at work: a prepare whose client was killed may go on.
bool is_busy(const HookConf& conf, const std::string& uuid) {
  if (uuid.empty()) return false;
  const Fd folder = open_state(conf.root, "lock", false);
  const Fd lock(openat(folder.get(), ("domain-" + uuid).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  return lock.ok() && flock(lock.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

// QEMU is up: from here on a hold of the guest counts by who holds the device, not by its having been
// prepared a moment ago. A note that cannot be made costs five minutes of that.
void note_started(const HookConf& conf, const std::string& uuid) {
  if (uuid.empty() || !has_files(conf, "bindings")) return;
  const Fd folder = open_state(conf.root, "started", true);
  const Fd file(openat(folder.get(), uuid.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
}

// Without an entry in the books or the journal a release has nothing to give back, unless a prepare is still
// at work; with one, it may concern a device that the XML no longer lists.
bool has_work(const Call& call, const HookConf& conf, const DomainInput& input) {
  // What did not come whole may list devices behind its end.
  if (call.may_fail()) return input.may_take_devices || !input.whole;
  if (is_busy(conf, domain_uuid(input.xml)) || has_files(conf, "journal")) return true;
  return call.operation == "release" && has_files(conf, "bindings");
}

// node's own words when it ended by itself; ours for everything else.
int judge(const Call& call, const HookConf& conf, const ChildOutcome& out) {
  constexpr auto kLeft = "; 'hostdev status' says what is left";
  switch (out.end) {
    case ChildOutcome::End::kNotStarted:
      return refuse(call, conf,
                    conf.node + " could not be started (" + error_text(out.code) +
                        "); install nodejs again, or run 'hostdev hook remove'");
    case ChildOutcome::End::kNoProcess:
      return refuse(call, conf,
                    "no process, memory or descriptors for node (" + error_text(out.code) +
                        "); see the limits of libvirt's service, then start it again");
    case ChildOutcome::End::kOverdue:
      // A slow release goes on, and logs by itself.
      if (!call.may_fail()) return 0;
      if (out.waited_for_lock) {
        return refuse(call, conf,
                      "an earlier call for this guest still has its lock after " +
                          seconds_text(call.patience(conf)) + " (see " + state_dir(conf.root) +
                          "/hook.log, and 'hostdev status')");
      }
      return refuse(call, conf, "no answer within " + seconds_text(call.patience(conf)) + kLeft);
    case ChildOutcome::End::kSignalled:
      return refuse(call, conf,
                    conf.node + " was killed by signal " + std::to_string(out.code) +
                        (out.code == SIGKILL ? " (out of memory?)" : "") + kLeft);
    case ChildOutcome::End::kExited:
      break;
  }
  if (out.code == 0) return 0;
  const std::string ended = conf.node + " ended with exit code " + std::to_string(out.code);
  // What node says of a release is in its own log, unless it did not get that far.
  if (!call.may_fail()) return refuse(call, conf, ended);
  const std::string text = last_words(out.errors);
  if (text.empty()) return refuse(call, conf, ended + " and said nothing; run 'hostdev doctor'");
  say(text + "\n");
  // A fault of node's ends in its version, which tells nobody anything.
  const size_t last = text.rfind('\n') + 1;
  if (text.compare(last, kPrefix.size(), kPrefix) == 0) return 1;
  return refuse(call, conf, ended + ": see above");
}

}  // namespace

namespace {

int answer_hook(int argc, char** argv) {
  const double started = monotonic_seconds();
  const pid_t caller = getppid();
  std::string conf_file;
  if (argc == 6 && strcmp(argv[0], "--conf") == 0) {
    conf_file = argv[1];
    argc -= 2;
    argv += 2;
  }
  if (argc != 4) return 0;
  const Call call = {argv[0], argv[1], argv[2], argv[3]};
  if (!call.is_of_interest()) return 0;
  // A reader of stderr that is gone, or a log that may not grow, must not turn an answer into a signal.
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, nullptr);
  sigaction(SIGXFSZ, &ignore, nullptr);
  const auto conf = read_hook_conf(conf_file);
  if (!conf.removed.empty()) {
    say(std::string(kPrefix) + "it was removed while devices were bound (" + printable(conf.removed) +
        "), so nothing is done for '" + printable(call.name) +
        "': install it again, or take its hook out of libvirt's hooks folder\n");
    return 0;
  }
  const auto input = read_domain_input(started + call.patience(conf));
  if (call.operation == "started") {
    if (input.may_take_devices) note_started(conf, domain_uuid(input.xml));
    return 0;
  }
  if (!has_work(call, conf, input)) return 0;
  // A release is carried out all the same: node knows the guest by its name too.
  if (call.may_fail() && input.too_large) {
    return refuse(call, conf, "its XML is larger than 16 MiB; 'virsh edit' it, its metadata above all");
  }
  if (call.may_fail() && !input.whole) {
    return refuse(call, conf,
                  "its XML did not come to an end on stdin; start it again, and see libvirt's log");
  }
  if (!conf.found || conf.node.empty() || conf.cli.empty()) {
    return refuse(call, conf,
                  conf.file + (conf.found ? " names no node= and cli=" : " is not there") +
                      "; run 'hostdev hook install'");
  }
  if (access(conf.cli.c_str(), R_OK) != 0) {
    return refuse(call, conf,
                  "hostdev is gone from " + conf.cli + " (" + error_text(errno) +
                      "); install it again and run 'hostdev hook install', or take its hook out of libvirt's "
                      "hooks folder");
  }
  ChildJob job;
  job.program = conf.node;
  job.cli = conf.cli;
  job.root = conf.root;
  job.name = call.name;
  job.operation = call.operation;
  job.sub_operation = call.sub_operation;
  job.extra = call.extra;
  job.uuid = domain_uuid(input.xml);
  job.xml = input.xml;
  job.started = started;
  job.patience = call.patience(conf);
  job.node_patience = call.may_fail() ? job.patience : conf.prepare_deadline;
  job.may_fail = call.may_fail();
  job.caller = caller;
  return judge(call, conf, run_child(job));
}

}  // namespace

int run_hook(int argc, char** argv) {
  try {
    return answer_hook(argc, argv);
  } catch (const std::bad_alloc&) {
    // Nothing that needs memory: the operation is the word before the last two, whatever is before it.
    constexpr std::string_view kText =
        "hostdev: the guest was stopped: no memory for its XML; start it again when there is\n";
    const std::string_view operation = argc < 3 ? std::string_view() : std::string_view(argv[argc - 3]);
    if (operation != "prepare" && operation != "start") return 0;
    (void)!write(STDERR_FILENO, kText.data(), kText.size());
    return 1;
  }
}

}  // namespace hostdev
