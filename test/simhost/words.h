// The control file's language: a line is a command, its words are separated by spaces, `%41` in a word is the
// byte 0x41, and words of the form key=value are options.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace simhost {

struct Command {
  // Decoded; words[0] names the command.
  std::vector<std::string> words;
  std::map<std::string, std::string> options;

  [[nodiscard]] bool has(const std::string& key) const { return options.count(key) > 0; }
  [[nodiscard]] std::string text(const std::string& key, const std::string& otherwise = "") const;
  // Decimal or 0x…; an unreadable one is `otherwise`.
  [[nodiscard]] int number(const std::string& key, int otherwise = 0) const;
  // From a name such as EBUSY; 0 when the option is absent, -1 for an unknown name.
  [[nodiscard]] int error(const std::string& key) const;
};

// One line; a line without words has none.
Command parse_line(const std::string& line);

// 0 for an unknown name.
int errno_of(const std::string& name);

std::vector<std::string> split(const std::string& text, char at);

}  // namespace simhost
