// The parent's side of `hostdev-native write` (native/writer.h): starts it and talks to it with a deadline.
// Here and not in node, because node's child processes bring its streams with them, which cost more than the
// whole of a bind. Ownership: a Helper has the two pipes. Nobody waits for a process
// that hangs; when its pipes close it ends by itself, or when its write returns. It may outlive its Helper,
// so the ids of all that were started are kept together and reaped when the next one is started or let go.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

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

  // Hands over one request, whose answer is then to be taken before the next.
  Failure send(char operation, const std::string& path, const std::string& value);

  // What poll(2) waits on while a request is out.
  [[nodiscard]] int output() const { return output_.get(); }

  enum class Taken : uint8_t { kPart, kAnswer, kFailure };
  // Takes what has come of the answer. kFailure with EPIPE: the process died, and what was asked for may
  // still have happened; the next request starts another.
  Taken take(std::string& answer, Failure& failure);

  // Leaves a process that does not answer to its fate (not even SIGKILL ends a write in D state) and returns
  // its id; what was asked for may still happen.
  pid_t abandon();

  // Lets go of the process.
  void close();

 private:
  Failure start();
  Failure lost();

  std::string executable_;
  std::string root_;
  pid_t pid_ = 0;

  Fd input_;
  Fd output_;
  uint32_t last_id_ = 0;
  // Of the request that is out.
  char operation_ = 0;
  std::string path_;
  std::string got_;
};

}  // namespace hostdev
