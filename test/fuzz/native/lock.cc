// Locks: the file that is locked has the name that was asked for, all of it.
#include "lock.h"

#include <sys/stat.h>

#include <algorithm>

#include "check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string kFolder = scratch_folder();
  std::string name(text_of(data, size));
  std::replace(name.begin(), name.end(), '/', '_');
  const std::string file = kFolder + "/" + name;
  hostdev::Fd fd;
  if (hostdev::try_lock(file, size % 2 == 0, fd)) {
    check(!fd.ok(), "a failure or a lock");
    return 0;
  }
  check(fd.ok(), "nobody else has it");
  std::string where(5000, '\0');
  const ssize_t n =
      readlink(("/proc/self/fd/" + std::to_string(fd.get())).c_str(), where.data(), where.size());
  where.resize(n < 0 ? 0 : static_cast<size_t>(n));
  check(where == file, "the lock lies on the file that was named");
  unlink(file.c_str());
  return 0;
}
