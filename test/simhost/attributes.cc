// What stands in a device's folder: drivers/pci/pci-sysfs.c, and driver_override as drivers/base keeps it.
#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "kernel.h"

namespace simhost {

namespace {

std::string upper(std::string text, size_t width) {
  for (char& c : text) c = static_cast<char>(toupper(c));
  return std::string(width > text.size() ? width - text.size() : 0, '0') + text;
}

// modalias_show
std::string modalias_of(const Device& d) {
  const std::string c = upper(d.class_code, 6);
  return "pci:v" + upper(d.vendor, 8) + "d" + upper(d.product, 8) + "sv" + upper(d.sub_vendor, 8) + "sd" +
         upper(d.sub_product, 8) + "bc" + c.substr(0, 2) + "sc" + c.substr(2, 2) + "i" + c.substr(4, 2);
}

std::string uevent_of(const Device& d) {
  return (d.driver != nullptr ? "DRIVER=" + d.driver->name + "\n" : "") +
         "PCI_CLASS=" + upper(d.class_code, 5) + "\nPCI_ID=" + upper(d.vendor, 4) + ":" +
         upper(d.product, 4) + "\nPCI_SUBSYS_ID=" + upper(d.sub_vendor, 4) + ":" + upper(d.sub_product, 4) +
         "\nPCI_SLOT_NAME=" + d.address + "\nMODALIAS=" + modalias_of(d) + "\n";
}

void put16(std::string& config, size_t at, unsigned value) {
  config[at] = static_cast<char>(value & 0xffU);
  config[at + 1] = static_cast<char>(value >> 8U);
}

unsigned hex(const std::string& text) {
  return static_cast<unsigned>(strtoul(text.c_str(), nullptr, 16));
}

}  // namespace

// Header, PCI Express capability with the port's type, ACS capability: what tells why a group is as it is.
std::string Kernel::config_of(const Device& d) {
  const std::string port = d.description.text("port", d.is_bridge() ? "root" : "endpoint");
  const bool express = port != "pci";
  std::string config(express ? 4096 : 256, '\0');
  // A VF's ids read as ffff in its own header.
  put16(config, 0x00, d.physfn != nullptr ? 0xffff : hex(d.vendor));
  put16(config, 0x02, d.physfn != nullptr ? 0xffff : hex(d.product));
  const unsigned code = hex(d.class_code);
  put16(config, 0x09, code & 0xffffU);
  config[0x0b] = static_cast<char>(code >> 16U);
  const unsigned header =
      (d.is_bridge() ? 1U : 0U) | (d.description.number("multifunction") != 0 ? 0x80U : 0U);
  config[0x0e] = static_cast<char>(header);
  if (!d.is_bridge()) {
    put16(config, 0x2c, hex(d.sub_vendor));
    put16(config, 0x2e, hex(d.sub_product));
  }
  if (!express) return config;
  put16(config, 0x06, 0x10);
  config[0x34] = 0x40;
  config[0x40] = 0x10;
  // PCI_EXP_FLAGS_TYPE
  const unsigned type = port == "root"     ? 4U
                        : port == "up"     ? 5U
                        : port == "down"   ? 6U
                        : port == "bridge" ? 7U
                                           : 0U;
  put16(config, 0x42, 2U | type << 4U);
  if (!d.description.has("acs")) return config;
  put16(config, 0x100, 0x000d);
  config[0x102] = 1;
  const auto bits = static_cast<unsigned>(d.description.number("acs"));
  put16(config, 0x104, bits);
  put16(config, 0x106, bits);
  return config;
}

void Kernel::make_attributes(Device* d) {
  const auto fixed = [&](const std::string& name, const std::string& text, mode_t mode = 0444) {
    Node* node = tree.attribute(d->folder, name, mode);
    node->show = [text](Lock&, std::string& out) {
      out = text;
      return 0;
    };
    return node;
  };
  fixed("vendor", "0x" + d->vendor + "\n");
  fixed("device", "0x" + d->product + "\n");
  fixed("class", "0x" + d->class_code + "\n");
  fixed("subsystem_vendor", "0x" + d->sub_vendor + "\n");
  fixed("subsystem_device", "0x" + d->sub_product + "\n");
  fixed("revision", "0x00\n");
  fixed("irq", "0\n");
  fixed("modalias", modalias_of(*d) + "\n");
  fixed("numa_node", std::to_string(d->description.number("numa", -1)) + "\n");
  fixed("config", config_of(*d), 0644);
  for (const auto& [key, text] : d->description.options) {
    if (key.rfind("attr.", 0) == 0) fixed(key.substr(5), text);
  }

  Node* uevent = tree.attribute(d->folder, "uevent", 0644);
  uevent->locks_reads = true;
  uevent->show = [d](Lock&, std::string& out) {
    out = uevent_of(*d);
    return 0;
  };
  uevent->store = [](Lock&, const std::string&) { return 0; };

  Node* override = tree.attribute(d->folder, "driver_override", 0644);
  override->locks_reads = true;
  override->locks = [d](const std::string&) { return d; };
  override->show = [d](Lock&, std::string& out) {
    out = d->override.value_or("(null)") + "\n";
    return 0;
  };
  override->store = [this, d](Lock&, const std::string& value) { return store_override(d, value); };

  Node* remove = tree.attribute(d->folder, "remove", 0220);
  remove->locks = [d](const std::string&) { return d; };
  remove->store = [this, d](Lock& lock, const std::string& value) {
    const long n = parse_unsigned(value);
    if (n < 0) return EINVAL;
    if (n > 0) remove_device(lock, d, false);
    return 0;
  };
  Node* again = tree.attribute(d->folder, "rescan", 0220);
  again->store = [this](Lock& lock, const std::string& value) {
    const long n = parse_unsigned(value);
    if (n < 0) return EINVAL;
    if (n > 0) rescan(lock);
    return 0;
  };
  Node* power = tree.child(d->folder, "power", Kind::kFolder, 0755);
  tree.attribute(power, "control", 0644)->show = [](Lock&, std::string& out) {
    out = "on\n";
    return 0;
  };
  make_reset(d);
  make_sriov(d);
}

// driver_set_override
int Kernel::store_override(Device* d, const std::string& value) {
  // One page less one byte: what show could not print.
  if (value.size() >= 4095) return EINVAL;
  const std::string line = value.substr(0, value.find('\n'));
  const std::string name = line.substr(0, line.find('\0'));
  if (name.empty())
    d->override.reset();
  else
    d->override = name;
  return 0;
}

void Kernel::make_reset(Device* d) {
  if (d->reset_methods.empty()) return;
  Node* method = tree.attribute(d->folder, "reset_method", 0644);
  method->show = [d](Lock&, std::string& out) {
    out = d->reset_methods + (d->reset_methods.empty() ? "" : "\n");
    return 0;
  };
  // reset_method_store: nothing switches resets off, "default" brings them all back, anything else must be
  // supported.
  method->store = [d](Lock&, const std::string& value) {
    const std::string supported = d->description.text("reset", "flr bus");
    const std::string text = without_newline(value);
    if (text == "default") {
      d->reset_methods = supported;
      return 0;
    }
    const auto known = split(supported, ' ');
    std::string chosen;
    for (const auto& word : split(text, ' ')) {
      if (std::find(known.begin(), known.end(), word) == known.end()) return EINVAL;
      chosen += (chosen.empty() ? "" : " ") + word;
    }
    d->reset_methods = chosen;
    return 0;
  };
  Node* reset = tree.attribute(d->folder, "reset", 0200);
  reset->locks = [d](const std::string&) { return d; };
  reset->store = [this, d](Lock& lock, const std::string& value) { return store_reset(lock, d, value); };
}

// reset_store: only 1 will do; without a method left pci_reset_function answers ENOTTY.
int Kernel::store_reset(Lock& lock, Device* d, const std::string& value) {
  if (parse_unsigned(value) != 1) return EINVAL;
  if (d->reset_methods.empty()) return ENOTTY;
  sleep_ms(lock, d->description.number("reset_ms"));
  return d->description.error("reset_errno");
}

}  // namespace simhost
