// A snapshot that does not fit makes node refuse to start, so it is taken only where everything that node
// looks at is as it was when src/warm.ts made it: the same text is made here and compared with the one beside
// it.
#include "launch.h"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace hostdev {
namespace {

std::string real_path(const std::string& path) {
  std::array<char, PATH_MAX> resolved{};
  return realpath(path.c_str(), resolved.data()) == nullptr ? "" : std::string(resolved.data());
}

// As execvp looks for it, resolved: what node calls its execPath.
std::string find_node() {
  const char* path = getenv("PATH");
  std::istringstream folders(path == nullptr ? "/usr/local/bin:/usr/bin:/bin" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string file = (folder.empty() ? "." : folder) + "/node";
    struct stat s {};
    if (access(file.c_str(), X_OK) == 0 && stat(file.c_str(), &s) == 0 && S_ISREG(s.st_mode))
      return real_path(file);
  }
  return "";
}

std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// "<size> <mtime in ns> <path>\n"; empty when there is no such file.
std::string file_line(const std::string& path) {
  struct stat s {};
  if (stat(path.c_str(), &s) != 0) return "";
  constexpr long long kSecond = 1'000'000'000;
  const long long mtime = s.st_mtim.tv_sec * kSecond + s.st_mtim.tv_nsec;
  return std::to_string(s.st_size) + " " + std::to_string(mtime) + " " + path + "\n";
}

// The first processor's lines that tell of its features.
std::string processor_lines() {
  std::ifstream in("/proc/cpuinfo");
  std::string lines;
  for (std::string line; std::getline(in, line) && !line.empty();) {
    for (const std::string_view name : {"vendor_id", "model name", "flags", "Features", "isa"}) {
      const bool named = line.starts_with(name) && line.size() > name.size();
      if (named && (line[name.size()] == '\t' || line[name.size()] == ' ')) lines += line + "\n";
    }
  }
  return lines;
}

// Whether the snapshot's key is what it would be if it were made now.
bool fits(const std::string& key, const std::string& folder, const std::string& node) {
  std::istringstream in(key);
  std::string line;
  if (!std::getline(in, line) || line != folder) return false;
  std::string now = folder + "\n";
  bool node_is_named = false;
  while (std::getline(in, line) && !line.empty() && line[0] >= '0' && line[0] <= '9') {
    const size_t at = line.find('/');
    if (at == std::string::npos) return false;
    const std::string path = line.substr(at);
    node_is_named |= path == node;
    now += file_line(path);
  }
  return node_is_named && key == now + processor_lines();
}

}  // namespace

int run_launcher(const char* script, char** words) {
  const std::string node = find_node();
  if (node.empty()) {
    constexpr std::string_view kMissing = "hostdev: node is not in PATH: install nodejs, 20.19 or later\n";
    (void)!write(STDERR_FILENO, kMissing.data(), kMissing.size());
    return 1;
  }
  const std::string folder = std::string(script).substr(0, std::string_view(script).rfind('/'));
  std::string blob = folder + "/snapshot.blob";
  std::string name = "node";
  std::string option = "--snapshot-blob";
  std::string end = "--";
  std::string file = script;
  std::vector<char*> argv{name.data()};
  const char* options = getenv("NODE_OPTIONS");
  const std::string key = read_text(folder + "/snapshot.key");
  if ((options == nullptr || *options == '\0') && !key.empty() && fits(key, folder, node)) {
    argv.insert(argv.end(), {option.data(), blob.data(), end.data()});
  } else {
    argv.push_back(file.data());
  }
  for (char** word = words; *word != nullptr; ++word) argv.push_back(*word);
  argv.push_back(nullptr);
  execv(node.c_str(), argv.data());
  const std::string failed = "hostdev: " + node + " could not be started\n";
  (void)!write(STDERR_FILENO, failed.data(), failed.size());
  return 1;
}

}  // namespace hostdev
