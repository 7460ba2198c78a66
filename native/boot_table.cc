#include "boot_table.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>

namespace hostdev {

namespace {

constexpr std::string_view kHead = "hostdev boot table ";
constexpr std::string_view kVersion = "1";
constexpr size_t kMaxLine = 1024;
constexpr size_t kDeviceWords = 13;
constexpr size_t kMaxDevices = 4096;
constexpr size_t kHashDigits = 16;

// FNV-1a, 64 bits: a table that was cut or mixed up is known; it is no signature, and needs none: whoever can
// write an initramfs is root.
std::string hash_of(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  std::string out(kHashDigits, '0');
  constexpr std::string_view kDigits = "0123456789abcdef";
  for (size_t at = kHashDigits; at > 0; hash >>= 4U) out[--at] = kDigits[hash & 0xfU];
  return out;
}

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  for (size_t at = 0; at <= line.size();) {
    const size_t end = std::min(line.find(' ', at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

// Printable, and no space: what words are made of.
bool is_word(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c > 0x20 && c < 0x7f; });
}

bool is_hex(std::string_view text, size_t digits) {
  constexpr std::string_view kHex = "0123456789abcdef";
  return text.size() == digits && text.find_first_not_of(kHex) == std::string_view::npos;
}

// A name that may be put into a path and an attribute, and handed to modprobe.
bool is_name(std::string_view text) {
  const auto usual = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '+';
  };
  return !text.empty() && text.size() <= 64 && text[0] != '-' && text[0] != '+' &&
         std::ranges::all_of(text, usual);
}

bool read_device(const std::vector<std::string_view>& w, TableDevice& out) {
  if (w.size() != kDeviceWords) return false;
  const auto id_or_none = [](std::string_view text) { return text == "-" || is_hex(text, 4); };
  const auto [end, error] = std::from_chars(w[9].data(), w[9].data() + w[9].size(), out.group);
  const bool right = is_word(w[1]) && is_word(w[2]) && is_hex(w[3], 4) && is_hex(w[4], 4) &&
                     id_or_none(w[5]) && id_or_none(w[6]) && is_hex(w[7], 6) && is_word(w[8]) &&
                     error == std::errc{} && end == w[9].data() + w[9].size() && is_name(w[10]) &&
                     (w[11] == "-" || is_name(w[11])) && is_word(w[12]);
  if (!right) return false;
  const std::array<std::string*, 8> texts = {
      &out.path,         &out.address, &out.vendor, &out.device, &out.subsystem_vendor, &out.subsystem_device,
      &out.device_class, &out.serial};
  for (size_t n = 0; n < texts.size(); ++n) *texts.at(n) = w[n + 1];
  out.driver = w[10];
  out.module = w[11];
  out.allow = w[12];
  return true;
}

// False for a line that no table of this version has.
bool take_line(std::string_view line, BootTable& table) {
  if (line.starts_with('#')) return true;
  const auto words = words_of(line);
  if (!std::ranges::all_of(words, is_word)) return false;
  if (words[0] == "device") {
    TableDevice device;
    if (!read_device(words, device) || table.devices.size() == kMaxDevices) return false;
    table.devices.push_back(std::move(device));
    return true;
  }
  if (words.size() != 2) return false;
  if (words[0] == "root") {
    table.root = words[1];
  } else if (words[0] == "resume") {
    table.resume = words[1];
  } else if (words[0] == "vital") {
    table.vital.emplace_back(words[1]);
  } else if (words[0] == "display") {
    table.displays.emplace_back(words[1]);
  } else {
    return false;
  }
  return true;
}

}  // namespace

std::string read_table(std::string_view text, BootTable& table) {
  table = {};
  if (text.empty()) return "is empty";
  if (text.size() > kMaxTable) return "is larger than any table of ours";
  if (!text.starts_with(kHead)) return "is no table of hostdev's";
  const size_t first = text.find('\n');
  if (text.substr(kHead.size(), std::min(first, text.size()) - kHead.size()) != kVersion)
    return "was written by another version of hostdev";
  // "end HASH" of all that stands before it.
  const std::string last = "\nend ";
  const size_t end = text.rfind(last);
  if (end == std::string_view::npos || !text.ends_with('\n')) return "was cut short";
  const std::string_view body = text.substr(0, end + 1);
  const std::string_view hash = text.substr(end + last.size(), text.size() - end - last.size() - 1);
  if (!is_hex(hash, kHashDigits) || hash != hash_of(body)) return "is not as it was written";
  std::string why = read_lines(body.substr(first + 1), table);
  if (why.empty()) table.hash = hash;
  return why;
}

std::string read_lines(std::string_view lines, BootTable& table) {
  table = {};
  BootTable read;
  for (size_t at = 0; at < lines.size();) {
    const size_t stop = std::min(lines.find('\n', at), lines.size());
    const std::string_view line = lines.substr(at, stop - at);
    if (line.size() > kMaxLine || !take_line(line, read)) return "has a line that is none of a table's";
    at = stop + 1;
  }
  table = std::move(read);
  return "";
}

bool allows(const TableDevice& device, std::string_view guard) {
  for (size_t at = 0; at <= device.allow.size();) {
    const size_t end = std::min(device.allow.find(',', at), device.allow.size());
    if (std::string_view(device.allow).substr(at, end - at) == guard) return true;
    at = end + 1;
  }
  return false;
}

}  // namespace hostdev
