// What the boot binder leaves: run/hostdev/boot.json, which src/boot/report.ts reads, and lines in the
// kernel's log.
#pragma once

#include <string>
#include <vector>

#include "boot_judge.h"

namespace hostdev {

struct EarlyReport {
  bool off = false;
  // Empty where no table was read.
  std::string table;
  // Why nothing was done at all; empty where each device speaks for itself.
  std::string problem;
  std::vector<BootDevice> devices;
};

// One document. `boot` is the kernel's boot id, empty where it is not known.
std::string report_json(const EarlyReport& report, const std::string& boot, const std::string& at);

// Writes the document, unless a later stage's is there, and says what was done in dev/kmsg, or on stderr
// where that is not there.
void leave_report(const Root& root, const std::string& root_path, const EarlyReport& report);

}  // namespace hostdev
