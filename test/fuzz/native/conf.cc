// hostdev.conf beside the hook: whatever stands in it, the deadlines are times.
#include "check.h"
#include "hook_conf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const int kFile = memfd_create("conf", 0);
  refill(kFile, text_of(data, size));
  const auto conf = hostdev::read_hook_conf("/proc/self/fd/" + std::to_string(kFile));
  for (const double seconds : {conf.prepare_deadline, conf.start_deadline, conf.other_deadline})
    check(seconds > 0 && seconds < 86400, "a deadline is more than nothing and less than a day");
  for (const auto& value : {conf.node, conf.cli, conf.root})
    check(value.find('\n') == std::string::npos, "a value is one line");
  check(!conf.root.empty(), "there is a root");
  return 0;
}
