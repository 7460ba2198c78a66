// The floor of the scan: the same opens, reads and links for each device as native/scan.cc, and nothing else: no
// checks of what was read, no results, no way back to JavaScript. Prints the milliseconds of each of `runs` scans.
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

void read_file(int dir, const char* name) {
  char text[4096];
  const int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return;
  if (read(fd, text, sizeof text) < 0) abort();
  close(fd);
}

bool read_link(int dir, const char* name) {
  char text[4096];
  return readlinkat(dir, name, text, sizeof text) >= 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const std::string folder = std::string(argv[1]) + "/sys/bus/pci/devices";
  for (int run = 0; run < atoi(argv[2]); ++run) {
    const auto from = std::chrono::steady_clock::now();
    DIR* dir = opendir(folder.c_str());
    if (dir == nullptr) return 1;
    std::vector<std::string> names;
    while (const dirent* e = readdir(dir)) {
      if (e->d_name[0] != '.') names.emplace_back(e->d_name);
    }
    for (const auto& name : names) {
      const int device = openat(dirfd(dir), name.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
      read_file(device, "modalias");
      read_file(device, "numa_node");
      read_link(device, "driver");
      read_link(device, "iommu_group");
      if (!read_link(device, "physfn")) read_file(device, "sriov_totalvfs");
      close(device);
    }
    closedir(dir);
    const std::chrono::duration<double, std::milli> ms = std::chrono::steady_clock::now() - from;
    printf("%.3f\n", ms.count());
  }
  return 0;
}
