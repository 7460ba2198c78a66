#include "boot_judge.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

#include "boot_sysfs.h"

namespace hostdev {

namespace {

// What a function shows of itself, in the table's order of words: vendor, device, both of the subsystem,
// class.
using Ids = std::array<std::string, 5>;
constexpr std::array<const char*, 5> kIdFiles = {"vendor", "device", "subsystem_vendor", "subsystem_device",
                                                 "class"};

// modalias has all of them in one read (drivers/pci/pci-sysfs.c):
// pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00.
bool ids_of_modalias(std::string text, Ids& ids) {
  std::ranges::transform(text, text.begin(),
                         [](char c) { return c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c; });
  constexpr std::string_view kShape = "pci:v0000xxxxd0000xxxxsv0000xxxxsd0000xxxxbcxxscxxixx";
  if (text.size() != kShape.size()) return false;
  for (size_t n = 0; n < text.size(); ++n) {
    const bool digit = (text[n] >= '0' && text[n] <= '9') || (text[n] >= 'a' && text[n] <= 'f');
    if (kShape[n] == 'x' ? !digit : text[n] != kShape[n]) return false;
  }
  ids = {text.substr(9, 4), text.substr(18, 4), text.substr(28, 4), text.substr(38, 4),
         text.substr(44, 2) + text.substr(48, 2) + text.substr(51, 2)};
  return true;
}

// Empty, or which file could not be read.
std::string read_ids(const Root& root, const std::string& address, Ids& ids) {
  if (ids_of_modalias(attribute(root, device_file(address, "modalias")), ids)) return "";
  for (size_t n = 0; n < ids.size(); ++n) {
    Failure failure;
    const std::string text = attribute(root, device_file(address, kIdFiles.at(n)), &failure);
    if (failure) return kIdFiles.at(n);
    ids.at(n) = text.starts_with("0x") ? text.substr(2) : text;
  }
  return "";
}

// Why the function at `address` is not the one of the table; empty when it is.
std::string other_device(const Root& root, const TableDevice& want, const std::string& address) {
  Ids ids;
  if (const std::string file = read_ids(root, address, ids); !file.empty())
    return "its " + file + " could not be read";
  const std::array<const std::string*, 5> wanted = {&want.vendor, &want.device, &want.subsystem_vendor,
                                                    &want.subsystem_device, &want.device_class};
  for (size_t n = 0; n < ids.size(); ++n) {
    if (*wanted.at(n) == "-" || ids.at(n) == *wanted.at(n)) continue;
    return "another device is in its slot (" + std::string(kIdFiles.at(n)) + " is " + ids.at(n).substr(0, 8) +
           ", not " + *wanted.at(n) + ")";
  }
  if (want.serial == "-") return "";
  const std::string serial = device_serial(root, address);
  // Not to be seen now is not another one: path and ids hold.
  return serial.empty() || serial == want.serial
             ? ""
             : "another card is in its slot (serial number " + serial + ")";
}

bool has(const std::vector<std::string>& list, const std::string& text) {
  return std::ranges::find(list, text) != list.end();
}

// Why a guard keeps it back; empty when none does.
std::string guarded(const Root& root, const BootTable& table, const BootCmdline& cmdline,
                    const BootDevice& d) {
  const TableDevice& want = *d.wished;
  if (has(table.vital, want.path)) return "the host stands on it";
  if (want.device_class.starts_with("02") && !cmdline.network.empty() && !allows(want, "network"))
    return "the kernel command line has " + cmdline.network + ": no NIC is taken before the real root";
  if (attribute(root, device_file(d.address, "boot_vga")) == "1" && !has(table.displays, want.path) &&
      !allows(want, "display"))
    return "it has become the display that the firmware booted";
  return "";
}

// Why the state that it is in is not ours to change; empty when it may go. Fills in what it had.
std::string unfit(const Root& root, BootDevice& d) {
  const TableDevice& want = *d.wished;
  d.driver = link_name(root, device_file(d.address, "driver"));
  if (d.driver == want.driver) {
    d.done = true;
    return "";
  }
  Failure failure;
  const std::string override_text = attribute(root, device_file(d.address, "driver_override"), &failure);
  if (failure) return "its driver_override could not be read";
  d.before = override_text == "(null)" ? "" : override_text;
  if (!d.before.empty() && d.before != want.driver) return "its driver_override is " + d.before + " already";
  if (want.driver != "none" && link_name(root, device_file(d.address, "iommu_group")).empty())
    return "it is in no IOMMU group";
  if (d.driver.empty()) {
    d.done = want.driver == "none" && !d.before.empty();
    return "";
  }
  // Only loadable modules have an initstate (kernel/module/sysfs.c): what is built in has bound before any
  // user space.
  const std::string module = link_name(root, "sys/bus/pci/drivers/" + d.driver + "/module");
  if (!module.empty() && exists(root, "sys/module/" + module + "/initstate"))
    return "it is on " + d.driver + ", which is no built-in driver: left to the real root";
  return "";
}

// A vital function in the IOMMU group of this boot, which may be larger than the table knows.
std::string vital_peer(const Root& root, const BootTable& table, const BootDevice& d,
                       const std::map<std::string, std::string>& address_by_path) {
  for (const auto& path : table.vital) {
    const auto at = address_by_path.find(path);
    if (at != address_by_path.end() &&
        exists(root, device_file(d.address, "iommu_group/devices/" + at->second)))
      return at->second + " of its IOMMU group carries the host";
  }
  return "";
}

}  // namespace

std::vector<BootDevice> judge_devices(const Root& root, const BootTable& table, const BootCmdline& cmdline,
                                      const std::map<std::string, std::string>& address_by_path) {
  std::vector<BootDevice> devices;
  std::set<size_t> refused;
  for (const auto& want : table.devices) {
    BootDevice d;
    d.wished = &want;
    const auto at = address_by_path.find(want.path);
    if (at == address_by_path.end()) {
      d.reason = "no device is in its slot";
    } else {
      d.address = at->second;
      d.reason = other_device(root, want, d.address);
      if (d.reason.empty()) {
        d.reason = guarded(root, table, cmdline, d);
        if (d.reason.empty()) d.reason = vital_peer(root, table, d, address_by_path);
        if (d.reason.empty()) d.reason = unfit(root, d);
        if (!d.reason.empty()) refused.insert(want.group);
      }
    }
    devices.push_back(std::move(d));
  }
  for (auto& d : devices) {
    if (!d.reason.empty() || d.done || !refused.contains(d.wished->group)) continue;
    d.held_back = true;
    d.reason = "another function of its group was refused";
  }
  return devices;
}

}  // namespace hostdev
