// The parent's side of `hostdev-native write` (native/writer.h): starts it and talks to it with a deadline.
// Here and not in node, because node's child processes bring its streams with them, which cost more than the
// whole of a bind. Ownership: a Helper has the two pipes and the process id, to reap it. Nobody waits for one
// that hangs; when its pipes close it ends by itself, or when its write returns.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "fd.h"
#include "root_fs.h"

namespace hostdev {

class Helper {
 public:
  // `executable` serves the folder `root`. It is started at once, so that it is there when the first request
  // is; if that fails, the request tries again and says why.
  Helper(std::string executable, std::string root)
      : executable_(std::move(executable)), root_(std::move(root)) {
    (void)start();
  }

  // One request and its answer; blocks for at most `deadline_ms`. After ETIMEDOUT and EPIPE what was asked
  // for may still happen, and the next request starts another process.
  Failure request(char operation, const std::string& path, const std::string& value, double deadline_ms,
                  std::string& answer);

  // Lets go of the process.
  void close();

 private:
  Failure start();
  Failure lost(int error, char operation, const std::string& path);
  void reap();

  std::string executable_;
  std::string root_;
  std::vector<pid_t> pids_;

  Fd input_;
  Fd output_;
  uint32_t last_id_ = 0;
};

}  // namespace hostdev
