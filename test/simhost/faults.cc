#include "faults.h"

#include <fnmatch.h>

#include <array>
#include <cerrno>
#include <string_view>

namespace simhost {

int Faults::add(const Command& command) {
  if (command.words.size() < 3) return EINVAL;
  Fault f;
  f.operation = command.words[1];
  constexpr std::array<std::string_view, 8> kOperations = {"lookup",  "open",  "read",   "readlink",
                                                           "readdir", "write", "change", "*"};
  bool known = false;
  for (const auto& o : kOperations) known |= f.operation == o;
  f.glob = command.words[2];
  f.error = command.error("errno");
  if (!known || f.error < 0) return EINVAL;
  f.delay_ms = command.number("delay");
  for (size_t i = 3; i < command.words.size(); ++i) {
    const auto& word = command.words[i];
    if (word == "hang")
      f.hang = true;
    else if (word == "silent")
      f.silent = true;
    else if (word == "after")
      f.after = true;
    else if (word == "kill")
      f.kill = true;
    else
      return EINVAL;
  }
  const std::string deed = command.text("do");
  if (deed.rfind("vanish_", 0) == 0) f.vanish = deed.substr(7);
  f.skip = command.number("skip");
  f.count = command.number("count", -1);
  rules_.push_back(f);
  return 0;
}

std::optional<Fault> Faults::match(const std::string& operation, bool changes, const std::string& path) {
  for (auto& f : rules_) {
    const bool fits = f.operation == "*" || f.operation == operation || (f.operation == "change" && changes);
    if (!fits || f.count == 0 || fnmatch(f.glob.c_str(), path.c_str(), 0) != 0) continue;
    if (f.skip > 0) {
      --f.skip;
      continue;
    }
    if (f.count > 0) --f.count;
    return f;
  }
  return std::nullopt;
}

}  // namespace simhost
