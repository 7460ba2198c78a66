#include "holders.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string_view>
#include <unordered_map>

#include "monotonic.h"

namespace hostdev {

namespace {

// Who asks is on the way to an answer with a deadline of its own, and one process may have a million files
// open.
constexpr double kBudgetSeconds = 1;
constexpr std::string_view kDeleted = " (deleted)";

bool is_number(const std::string& name) {
  return !name.empty() && name.size() < 10 && name.find_first_not_of("0123456789") == std::string::npos;
}

// Device numbers of nodes, each with the node that is asked for.
using Numbers = std::unordered_map<uint64_t, std::string>;

uint64_t number_key(uint32_t major, uint32_t minor, uint32_t mode) {
  return (static_cast<uint64_t>(S_ISBLK(mode) ? 1 : 0) << 63U) | static_cast<uint64_t>(major) << 32U | minor;
}

Numbers numbers_of(const std::unordered_set<std::string>& targets) {
  Numbers numbers;
  for (const auto& target : targets) {
    struct stat is {};
    if (stat(target.c_str(), &is) != 0 || (!S_ISBLK(is.st_mode) && !S_ISCHR(is.st_mode))) continue;
    numbers.emplace(number_key(major(is.st_rdev), minor(is.st_rdev), is.st_mode), target);
  }
  return numbers;
}

// A container has nodes of its own for the same device: told by its number. Nothing is asked of a file server
// that may be dead.
bool other_name(int fds, const char* number, const Numbers& numbers, std::string& target) {
  if (numbers.empty() || target[0] != '/') return false;
  struct statx is {};
  if (statx(fds, number, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &is) != 0) return false;
  if (!S_ISBLK(is.stx_mode) && !S_ISCHR(is.stx_mode)) return false;
  const auto found = numbers.find(number_key(is.stx_rdev_major, is.stx_rdev_minor, is.stx_mode));
  if (found == numbers.end()) return false;
  target = found->second;
  return true;
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
  const auto nodes = root.is_real ? numbers_of(targets) : Numbers{};
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
      // A node that was made anew keeps its old holders: "/dev/nvme0n1 (deleted)" (fs/d_path.c).
      if (target.size() > kDeleted.size() && target.ends_with(kDeleted))
        target.resize(target.size() - kDeleted.size());
      if (targets.count(target) == 0 && !other_name(fds.get(), number.c_str(), nodes, target)) continue;
      if (!seen.insert(target).second) continue;
      out.push_back({static_cast<int>(strtol(pid.c_str(), nullptr, 10)), command_of(root, process), target});
    }
  }
  std::sort(out.begin(), out.end(), [](const Holder& a, const Holder& b) {
    return a.pid != b.pid ? a.pid < b.pid : a.path < b.path;
  });
  return {};
}

}  // namespace hostdev
