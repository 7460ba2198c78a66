#include "words.h"

#include <array>
#include <cerrno>
#include <cstdlib>

namespace simhost {

namespace {

std::string decoded(const std::string& word) {
  std::string out;
  for (size_t i = 0; i < word.size(); ++i) {
    if (word[i] == '%' && i + 2 < word.size()) {
      out.push_back(static_cast<char>(strtol(word.substr(i + 1, 2).c_str(), nullptr, 16)));
      i += 2;
    } else {
      out.push_back(word[i]);
    }
  }
  return out;
}

struct Named {
  const char* name;
  int value;
};

constexpr std::array<Named, 21> kErrors = {{
    {"EPERM", EPERM},   {"ENOENT", ENOENT}, {"EINTR", EINTR},         {"EIO", EIO},
    {"ENXIO", ENXIO},   {"EAGAIN", EAGAIN}, {"ENOMEM", ENOMEM},       {"EACCES", EACCES},
    {"EBUSY", EBUSY},   {"EEXIST", EEXIST}, {"ENODEV", ENODEV},       {"ENOTDIR", ENOTDIR},
    {"EINVAL", EINVAL}, {"ENOSPC", ENOSPC}, {"EROFS", EROFS},         {"ERANGE", ERANGE},
    {"ENOSYS", ENOSYS}, {"ENOTTY", ENOTTY}, {"ETIMEDOUT", ETIMEDOUT}, {"EOPNOTSUPP", EOPNOTSUPP},
    {"EFBIG", EFBIG},
}};

}  // namespace

int errno_of(const std::string& name) {
  for (const auto& e : kErrors) {
    if (name == e.name) return e.value;
  }
  return 0;
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  size_t from = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && text[i] != at) continue;
    if (i > from) parts.push_back(text.substr(from, i - from));
    from = i + 1;
  }
  return parts;
}

Command parse_line(const std::string& line) {
  Command command;
  for (const auto& word : split(line, ' ')) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos || command.words.empty())
      command.words.push_back(decoded(word));
    else
      command.options[decoded(word.substr(0, equals))] = decoded(word.substr(equals + 1));
  }
  return command;
}

std::string Command::text(const std::string& key, const std::string& otherwise) const {
  const auto it = options.find(key);
  return it == options.end() ? otherwise : it->second;
}

int Command::number(const std::string& key, int otherwise) const {
  const auto it = options.find(key);
  if (it == options.end()) return otherwise;
  char* end = nullptr;
  const long n = strtol(it->second.c_str(), &end, 0);
  return end == it->second.c_str() || *end != '\0' ? otherwise : static_cast<int>(n);
}

int Command::error(const std::string& key) const {
  if (!has(key)) return 0;
  const int e = errno_of(text(key));
  return e == 0 ? -1 : e;
}

}  // namespace simhost
