#include "hook_conf.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

#include "root_fs.h"

namespace hostdev {

namespace {

constexpr size_t kMaxConf = 65536;

bool read_conf_text(const std::string& file, std::string& text) {
  const Fd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  return fd.ok() && !read_all(fd.get(), file, kMaxConf, false, text);
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

// Seconds; a value that is none leaves what was there: a typing error must not make a deadline of nothing.
void seconds(const std::string& value, double& out) {
  char* end = nullptr;
  const double v = strtod(value.c_str(), &end);
  if (end != value.c_str() && *end == '\0' && v > 0 && v < 86400) out = v;
}

std::string trimmed(const std::string& text) {
  constexpr auto kBlank = " \t\r";
  const size_t from = text.find_first_not_of(kBlank);
  return from == std::string::npos ? "" : text.substr(from, text.find_last_not_of(kBlank) + 1 - from);
}

void set(HookConf& conf, const std::string& key, const std::string& value) {
  if (key == "node" && (conf.node.empty() || access(conf.node.c_str(), X_OK) != 0)) conf.node = value;
  if (key == "removed") conf.removed = value;
  if (key == "cli") conf.cli = value;
  if (key == "root" && !value.empty()) conf.root = value;
  if (key == "prepare_deadline") seconds(value, conf.prepare_deadline);
  if (key == "start_deadline") seconds(value, conf.start_deadline);
  if (key == "other_deadline") seconds(value, conf.other_deadline);
}

}  // namespace

HookConf read_hook_conf(const std::string& file) {
  HookConf conf;
  conf.file = file;
  std::string text;
  if (file.empty()) {
    std::array<char, 4096> self;
    const ssize_t n = readlink("/proc/self/exe", self.data(), self.size());
    if (n <= 0) {
      // Without /proc nobody knows where this lies; the current folder is anybody's.
      conf.file = "hostdev.conf";
      return conf;
    }
    const std::string folder = folder_of(std::string(self.data(), static_cast<size_t>(n)));
    conf.file = folder_of(folder) + "/hostdev.conf";
    conf.found = read_conf_text(conf.file, text);
    if (!conf.found) conf.found = read_conf_text(folder + "/hostdev.conf", text);
  } else {
    conf.found = read_conf_text(file, text);
  }
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at) == std::string::npos ? text.size() : text.find('\n', at);
    const std::string line = text.substr(at, end - at);
    const size_t equals = line.find('=');
    if (equals != std::string::npos && line[0] != '#') {
      set(conf, trimmed(line.substr(0, equals)), trimmed(line.substr(equals + 1)));
    }
    at = end + 1;
  }
  return conf;
}

}  // namespace hostdev
