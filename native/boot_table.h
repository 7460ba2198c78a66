// The table that `hostdev boot install` makes of the wishes and the initramfs carries (src/boot/table.ts
// writes it). Text, a line each; cut, foreign, or of another version it says nothing at all.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace hostdev {

// More than 4,096 devices need.
constexpr size_t kMaxTable = size_t{2} * 1024 * 1024;

// A function that shall be on `driver`; "none" is a name that no driver has.
struct TableDevice {
  // Slots from the root bus on, as src/pci/identity.ts has them: pci0000:20/04.0/00.0.
  std::string path;
  // Where it was when the table was written: for people only.
  std::string address;
  std::string vendor;
  std::string device;
  // "-" where it has none.
  std::string subsystem_vendor;
  std::string subsystem_device;
  std::string device_class;
  // Device Serial Number, 00-1b-21-ff-ff-3c-4d-5e; "-" where none was seen.
  std::string serial;
  // Functions with the same number move together or not at all.
  size_t group = 0;
  std::string driver;
  // What modprobe is asked for when the driver is not there; "-" for a driver that is built in, and for
  // "none".
  std::string module;
  // The guards that its wish lifts, with commas; "-" for none.
  std::string allow;
};

struct BootTable {
  // root= and resume= of the kernel command line that the table was written under; empty where there was
  // none.
  std::string root;
  std::string resume;
  // Paths of what the host stood on, and of the display that the firmware had booted.
  std::vector<std::string> vital;
  std::vector<std::string> displays;
  std::vector<TableDevice> devices;
  // What its last line says.
  std::string hash;
};

// Reads a table. Returns an empty text, or why it is none, for people; then `table` says nothing.
std::string read_table(std::string_view text, BootTable& table);

// The lines between a table's first and its last; as read_table, which has seen to its hash by then.
std::string read_lines(std::string_view lines, BootTable& table);

// Whether the wish of a device lifts a guard.
bool allows(const TableDevice& device, std::string_view guard);

}  // namespace hostdev
