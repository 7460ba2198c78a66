#include "system_log.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <ctime>

#include "fd.h"

namespace hostdev {

namespace {

// RFC 3164 4.1 says 1024 for the whole; today's daemons take 2048 and more.
constexpr size_t kMaxText = 1900;

// "<29>Nov 26 12:00:00 ", as glibc's syslog(3) has it: months in English whatever the locale.
std::string head() {
  constexpr std::array<const char*, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::time_t seconds = std::time(nullptr);
  std::tm local{};
  localtime_r(&seconds, &local);
  std::array<char, 32> time{};
  (void)strftime(time.data(), time.size(), "%e %H:%M:%S", &local);
  std::string out = "<";
  out += std::to_string(LOG_DAEMON | LOG_NOTICE);
  out += '>';
  out += kMonths.at(static_cast<size_t>(local.tm_mon));
  out += ' ';
  out += time.data();
  out += ' ';
  return out;
}

}  // namespace

bool system_log(const std::string& path, const std::string& text) {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  if (path.size() >= sizeof to.sun_path) return false;
  memcpy(static_cast<char*>(to.sun_path), path.data(), path.size());
  std::string line = text.substr(0, kMaxText);
  std::replace_if(
      line.begin(), line.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  std::string bytes = head();
  bytes += "hostdev[";
  bytes += std::to_string(getpid());
  bytes += "]: ";
  bytes += line;
  const Fd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.ok()) return false;
  const ssize_t n = sendto(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL,
                           reinterpret_cast<const sockaddr*>(&to), sizeof to);
  return n == static_cast<ssize_t>(bytes.size());
}

}  // namespace hostdev
