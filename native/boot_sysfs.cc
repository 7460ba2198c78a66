#include "boot_sysfs.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstdint>
#include <string_view>
#include <vector>

namespace hostdev {

namespace {

constexpr auto kDevices = "sys/bus/pci/devices";
constexpr size_t kPage = 4096;

bool hex(std::string_view text, size_t least, size_t most) {
  return text.size() >= least && text.size() <= most &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// 0000:23:00.0, with a domain of up to eight digits.
bool is_address(std::string_view text) {
  const size_t domain = text.find(':');
  if (domain == std::string_view::npos || text.size() != domain + 8) return false;
  const std::string_view rest = text.substr(domain);
  return hex(text.substr(0, domain), 4, 8) && hex(rest.substr(1, 2), 2, 2) && rest[3] == ':' &&
         hex(rest.substr(4, 2), 2, 2) && rest[6] == '.' && rest[7] >= '0' && rest[7] <= '7';
}

// pci0000:20
bool is_root_bus(std::string_view text) {
  const size_t colon = text.find(':');
  return text.starts_with("pci") && colon != std::string_view::npos && hex(text.substr(3, colon - 3), 4, 8) &&
         hex(text.substr(colon + 1), 2, 2);
}

std::string trimmed(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace

std::string slot_path(const std::string& target, const std::string& address) {
  std::string path;
  std::string_view last;
  const std::string_view text = target;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('/', at), text.size());
    const std::string_view part = text.substr(at, end - at);
    at = end + 1;
    last = part;
    if (path.empty()) {
      if (is_root_bus(part)) path = part;
    } else if (is_address(part)) {
      path += '/';
      path += part.substr(part.rfind(':') + 1);
    }
  }
  return last == address && path.find('/') != std::string::npos ? path : "";
}

Failure slot_paths(const Root& root, std::map<std::string, std::string>& address_by_path) {
  Fd folder;
  if (auto failure = open_in_root(root, kDevices, O_RDONLY | O_DIRECTORY, folder)) return failure;
  std::vector<std::string> names;
  if (auto failure = read_names(folder.get(), kDevices, names)) return failure;
  for (const auto& name : names) {
    std::string target;
    if (!is_address(name) || read_link_at(folder.get(), name.c_str(), name, target)) continue;
    const std::string path = slot_path(target, name);
    if (!path.empty()) address_by_path.emplace(path, name);
  }
  return {};
}

std::string device_file(const std::string& address, const std::string& file) {
  return std::string(kDevices) + "/" + address + "/" + file;
}

std::string attribute(const Root& root, const std::string& path, Failure* failure) {
  Fd fd;
  std::string text;
  Failure met = open_in_root(root, path, O_RDONLY | O_NOCTTY | O_NONBLOCK, fd);
  if (!met) met = read_all(fd.get(), path, kPage, true, text);
  if (failure != nullptr) *failure = met;
  return met ? "" : trimmed(text);
}

std::string link_name(const Root& root, const std::string& path) {
  Fd fd;
  std::string target;
  if (open_in_root(root, path, O_PATH | O_NOFOLLOW, fd) || read_link_at(fd.get(), "", path, target))
    return "";
  return target.substr(target.rfind('/') + 1);
}

bool exists(const Root& root, const std::string& path) {
  Fd fd;
  return !open_in_root(root, path, O_PATH, fd);
}

std::string device_serial(const Root& root, const std::string& address) {
  constexpr size_t kConfig = 4096;
  constexpr size_t kExtended = 256;
  constexpr uint32_t kSerial = 0x0003;
  Fd fd;
  std::string bytes;
  const std::string path = device_file(address, "config");
  if (open_in_root(root, path, O_RDONLY | O_NOCTTY, fd) || read_all(fd.get(), path, kConfig, true, bytes))
    return "";
  if (bytes.size() < kConfig) return "";
  const auto word = [&](size_t at) {
    uint32_t value = 0;
    for (size_t n = 4; n > 0; --n) value = value << 8U | static_cast<unsigned char>(bytes[at + n - 1]);
    return value;
  };
  // At most as many capabilities as fit: a list that runs in a circle ends here.
  size_t at = kExtended;
  for (size_t n = 0; n < (kConfig - kExtended) / 8 && at >= kExtended && at + 12 <= kConfig; ++n) {
    const uint32_t header = word(at);
    if (header == 0 || header == UINT32_MAX) return "";
    if ((header & 0xffffU) == kSerial) {
      const std::array<uint32_t, 2> halves = {word(at + 8), word(at + 4)};
      const bool said = halves != std::array<uint32_t, 2>{0, 0} &&
                        halves != std::array<uint32_t, 2>{UINT32_MAX, UINT32_MAX};
      std::string text;
      for (const uint32_t half : halves) {
        for (unsigned shift = 32; shift > 0; shift -= 8) {
          constexpr std::string_view kDigits = "0123456789abcdef";
          const uint32_t byte = half >> (shift - 8) & 0xffU;
          if (!text.empty()) text += '-';
          text += kDigits[byte >> 4U];
          text += kDigits[byte & 0xfU];
        }
      }
      return said ? text : "";
    }
    at = header >> 20U & 0xffcU;
  }
  return "";
}

Failure write_attribute(const Root& root, const std::string& path, const std::string& value) {
  Fd fd;
  if (auto failure = open_in_root(root, path, O_WRONLY | O_NOCTTY, fd)) return failure;
  const ssize_t n = write(fd.get(), value.data(), value.size());
  if (n < 0) return {errno, "write", path};
  if (static_cast<size_t>(n) != value.size()) return {EIO, "write", path};
  if (close(fd.release()) != 0) return {errno, "close", path};
  return {};
}

}  // namespace hostdev
