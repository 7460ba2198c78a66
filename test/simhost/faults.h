// Fault rules: which operation on which path is answered otherwise than the kernel would, and how often.
#pragma once

#include <deque>
#include <optional>
#include <string>

#include "words.h"

namespace simhost {

struct Fault {
  // lookup open read readlink readdir write, `change` (whatever changes anything, sysfs or plain files), or *
  // for all.
  std::string operation;
  // fnmatch(3); * matches / too. A device's attributes go by sys/bus/pci/devices/<address>/….
  std::string glob;
  int error = 0;
  int delay_ms = 0;
  // Waits for `release`, with the device's lock held if the operation takes it.
  bool hang = false;
  // Answers success and does nothing.
  bool silent = false;
  // Does what was asked for first, then what the rule says: an answer that gets lost.
  bool after = false;
  // The client gets SIGKILL: the asking process, and when that is hostdev's helper, the command it works for.
  bool kill = false;
  std::string vanish;
  int skip = 0;
  // Negative: for ever.
  int count = -1;
};

class Faults {
 public:
  // 0, or EINVAL for a rule that makes no sense.
  int add(const Command& command);
  void clear() { rules_.clear(); }
  // The first rule that fits, its counters moved on.
  std::optional<Fault> match(const std::string& operation, bool changes, const std::string& path);

 private:
  std::deque<Fault> rules_;
};

}  // namespace simhost
