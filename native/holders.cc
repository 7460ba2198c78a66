#include "holders.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "monotonic.h"

namespace hostdev {

namespace {

// Who asks is on the way to an answer with a deadline of its own, and one process may have a million files
// open.
constexpr double kBudgetSeconds = 1;

bool is_number(const std::string& name) {
  return !name.empty() && name.size() < 10 && name.find_first_not_of("0123456789") == std::string::npos;
}

// Whatever else keeps its files from being seen: it may be the one that is looked for.
bool has_ended(int error) {
  return error == ENOENT || error == ESRCH || error == ENOTDIR;
}

std::string command_of(const Root& root, const std::string& process) {
  const std::string path = process + "/comm";
  Fd fd;
  std::string text;
  // O_NONBLOCK: a FIFO in somebody's tree must not hold us for ever.
  if (open_in_root(root, path, O_RDONLY | O_NONBLOCK, fd) || read_all(fd.get(), path, 64, true, text))
    return "?";
  while (!text.empty() && text.back() == '\n') text.pop_back();
  // A process names itself: what could move a terminal or break a line does not get through.
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c > 0x7e; }, '?');
  return text;
}

}  // namespace

Failure find_holders(const Root& root, const std::unordered_set<std::string>& targets,
                     std::vector<Holder>& out, int& unreadable) {
  Fd proc;
  std::vector<std::string> pids;
  auto failure = open_in_root(root, "proc", O_RDONLY | O_DIRECTORY, proc);
  if (!failure) failure = read_names(proc.get(), "proc", pids);
  if (failure) return failure.error == ENOENT ? Failure{} : failure;
  const double until = monotonic_seconds() + kBudgetSeconds;
  for (const auto& pid : pids) {
    if (!is_number(pid)) continue;
    if (monotonic_seconds() > until) {
      ++unreadable;
      continue;
    }
    const std::string process = "proc/" + pid;
    const std::string folder = process + "/fd";
    Fd fds;
    std::vector<std::string> numbers;
    if (const auto closed = open_in_root(root, folder, O_RDONLY | O_DIRECTORY, fds)) {
      if (!has_ended(closed.error)) ++unreadable;
      continue;
    }
    if (const auto failed = read_names(fds.get(), folder, numbers)) {
      if (!has_ended(failed.error)) ++unreadable;
      continue;
    }
    std::unordered_set<std::string> seen;
    std::string target;
    for (const auto& number : numbers) {
      if (monotonic_seconds() > until) {
        ++unreadable;
        break;
      }
      if (read_link_at(fds.get(), number.c_str(), folder, target)) continue;
      if (targets.count(target) == 0 || !seen.insert(target).second) continue;
      out.push_back({static_cast<int>(strtol(pid.c_str(), nullptr, 10)), command_of(root, process), target});
    }
  }
  std::sort(out.begin(), out.end(), [](const Holder& a, const Holder& b) {
    return a.pid != b.pid ? a.pid < b.pid : a.path < b.path;
  });
  return {};
}

}  // namespace hostdev
