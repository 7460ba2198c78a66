// The table that the initramfs carries, and the kernel command line: whatever stands in them, what is read of
// them is whole or nothing, and every word may be put into a path.
#include "boot_table.h"

#include "boot_cmdline.h"
#include "boot_sysfs.h"
#include "check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = text_of(data, size);
  hostdev::BootTable table;
  // As it is, and with the last line that would make it a table: else chance never gets past the hash.
  for (const bool sealed : {false, true}) {
    const std::string why = sealed ? hostdev::read_lines(text, table) : hostdev::read_table(text, table);
    check(why.empty() || (table.devices.empty() && table.vital.empty() && table.hash.empty()),
          "a table that is none says nothing");
    for (const auto& d : table.devices) {
      for (const auto& word : {d.driver, d.module})
        check(!word.empty() && word.find_first_of("/ .\n") == std::string::npos, "a driver is a name");
      check(d.vendor.size() == 4 && d.device.size() == 4 && d.device_class.size() == 6, "ids are ids");
      (void)hostdev::allows(d, "network");
    }
  }
  const auto cmdline = hostdev::read_boot_cmdline(text);
  for (const auto& word : {cmdline.network, cmdline.root, cmdline.resume})
    check(word.find_first_of(" \t\n\r") == std::string::npos, "a word is a word");
  const std::string path = hostdev::slot_path(std::string(text), "0000:00:00.0");
  check(path.empty() || path.starts_with("pci"), "a path begins at its root bus");
  return 0;
}
