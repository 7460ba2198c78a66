#include "boot_report.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "boot_sysfs.h"
#include "state_dir.h"

namespace hostdev {

namespace {

constexpr auto kName = "boot.json";
// A record of the kernel's log holds about a thousand bytes (kernel/printk/printk.c PRINTK_MESSAGE_MAX).
constexpr size_t kMaxLine = 900;

// Text of sysfs may be anything: bytes that are no plain ASCII are replaced.
std::string json(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c >= 0x20 && c < 0x7f ? c : '?';
  }
  return out + '"';
}

std::string json_or_null(const std::string& text) {
  return text.empty() ? "null" : json(text);
}

std::string now_text() {
  const std::time_t seconds = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::array<char, 32> text{};
  (void)strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S.000Z", &utc);
  return text.data();
}

void write_all(int fd, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = write(fd, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    at += static_cast<size_t>(n);
  }
}

// Lines of the kernel's log, one write each; <5> is a notice, <4> a warning.
class Log {
 public:
  explicit Log(const Root& root) {
    if (open_in_root(root, "dev/kmsg", O_WRONLY | O_NOCTTY | O_APPEND, fd_)) fd_.reset();
  }
  void say(bool well, const std::string& text) const {
    std::string line = (well ? "<5>hostdev: " : "<4>hostdev: ") + text.substr(0, kMaxLine);
    for (char& c : line) {
      if (c < 0x20 || c == 0x7f) c = '?';
    }
    line += '\n';
    write_all(fd_.ok() ? fd_.get() : STDERR_FILENO, fd_.ok() ? line : line.substr(3));
  }

 private:
  Fd fd_;
};

void say_all(const Root& root, const EarlyReport& report) {
  const Log log(root);
  if (!report.problem.empty()) log.say(false, report.problem + ": no device was bound before the real root");
  for (const auto& d : report.devices) {
    const std::string name = d.address.empty() ? "(" + d.wished->address + ")" : d.address;
    const std::string what = d.wished->driver == "none" ? "has no driver" : "is on " + d.wished->driver;
    std::string said = name;
    if (d.reason.empty()) {
      said.append(" ").append(what);
    } else {
      said.append(" (").append(d.wished->path).append(") was left alone: ").append(d.reason);
    }
    log.say(d.reason.empty(), said);
  }
}

std::string write_report(const std::string& root_path, const std::string& text) {
  const Fd folder = open_state(root_path, "", true);
  if (!folder.ok()) return strerrordesc_np(errno);
  // A pass over the wishes has been here: its report says more, and what is done now is told by the log.
  if (faccessat(folder.get(), kName, F_OK, AT_SYMLINK_NOFOLLOW) == 0) return "";
  const std::string fresh = std::string(kName) + ".early.new";
  (void)unlinkat(folder.get(), fresh.c_str(), 0);
  const Fd fd(
      openat(folder.get(), fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!fd.ok()) return strerrordesc_np(errno);
  (void)fchmod(fd.get(), 0644);
  write_all(fd.get(), text);
  if (renameat(folder.get(), fresh.c_str(), folder.get(), kName) != 0) return strerrordesc_np(errno);
  return "";
}

}  // namespace

std::string report_json(const EarlyReport& report, const std::string& boot, const std::string& at) {
  std::string out = R"({"schema": 1, "boot": )" + json_or_null(boot) + R"(, "at": null, "off": )";
  out += report.off ? "true" : "false";
  out += ", \"wishes\": [],\n \"early\": {\"at\": " + json(at) + ", \"table\": " + json_or_null(report.table);
  out += ", \"problem\": " + json_or_null(report.problem) + ", \"devices\": [";
  const char* between = "\n  ";
  for (const auto& d : report.devices) {
    out += between;
    out += "{\"path\": " + json(d.wished->path) + ", \"address\": " + json_or_null(d.address);
    out += ", \"driver\": " + json(d.wished->driver) + ", \"done\": " + (d.done ? "true" : "false");
    out += ", \"reason\": " + json_or_null(d.reason) + "}";
    between = ",\n  ";
  }
  return out + "]}}\n";
}

void leave_report(const Root& root, const std::string& root_path, const EarlyReport& report) {
  say_all(root, report);
  const std::string boot = attribute(root, "proc/sys/kernel/random/boot_id");
  const std::string why = write_report(root_path, report_json(report, boot, now_text()));
  if (!why.empty()) Log(root).say(false, "run/hostdev/boot.json was not written: " + why);
}

}  // namespace hostdev
