// What the fuzz targets share: a property that does not hold is a report, as a bad access is.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

inline void check(bool holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "property does not hold: %s\n", what);
  abort();
}

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Fills the file of `fd` with `text` and goes to its beginning.
inline void refill(int fd, std::string_view text) {
  check(ftruncate(fd, 0) == 0 &&
            pwrite(fd, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()) &&
            lseek(fd, 0, SEEK_SET) == 0,
        "the input can be put into a file");
}

// A folder of its own on tmpfs, left behind at the end: the runner removes it with FUZZ_SCRATCH.
inline std::string scratch_folder() {
  const char* base = getenv("FUZZ_SCRATCH");
  std::string name = std::string(base == nullptr ? "/dev/shm" : base) + "/fuzz-XXXXXX";
  check(mkdtemp(name.data()) != nullptr, "a folder can be made");
  return name;
}
