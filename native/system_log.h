// A line for the system log, as syslog(3) writes it, but never waiting: a log daemon that hangs must not hold
// a guest's start.
#pragma once

#include <string>

namespace hostdev {

// Sends `text` as a notice of hostdev's to the datagram socket at `path` (/dev/log). What is too long is cut,
// what could break the line is replaced. False when nobody took it.
bool system_log(const std::string& path, const std::string& text);

}  // namespace hostdev
