#include "hook_xml.h"

namespace hostdev {

namespace {

constexpr size_t kNone = std::string_view::npos;

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

// Where the start tag that goes on at `at` ends; a '>' in quotes is not its end. A '<' is, also in quotes:
// XML has none there, and so every tag is looked at once, however many are left open.
size_t tag_end(std::string_view xml, size_t at) {
  char quote = 0;
  for (; at < xml.size(); ++at) {
    const char c = xml[at];
    if (c == '<') return at;
    if (quote != 0) {
      if (c == quote) quote = 0;
    } else if (c == '\'' || c == '"') {
      quote = c;
    } else if (c == '>') {
      return at;
    }
  }
  return xml.size();
}

// The value of the attribute `type` in the rest of a start tag, empty when it has none.
std::string_view type_in(std::string_view tag) {
  for (size_t p = tag.find("type"); p != kNone; p = tag.find("type", p + 1)) {
    if (p == 0 || !is_space(tag[p - 1])) continue;
    size_t v = p + 4;
    while (v < tag.size() && (is_space(tag[v]) || tag[v] == '=')) ++v;
    if (v >= tag.size() || (tag[v] != '\'' && tag[v] != '"')) continue;
    const size_t close = tag.find(tag[v], v + 1);
    return tag.substr(v + 1, close == kNone ? kNone : close - v - 1);
  }
  return {};
}

// True when an element whose start tag begins with `name` has one of two types.
bool has_element(std::string_view xml, std::string_view name, std::string_view type, std::string_view other) {
  for (size_t p = xml.find(name); p != kNone; p = xml.find(name, p + 1)) {
    const size_t at = p + name.size();
    const auto found = type_in(xml.substr(at, tag_end(xml, at) - at));
    if (!found.empty() && (found == type || found == other)) return true;
  }
  return false;
}

}  // namespace

bool may_take_devices(std::string_view xml) {
  // A disk of type network is Ceph or iSCSI: none of ours, and in many guests.
  return xml.find("<hostdev") != kNone || has_element(xml, "<interface", "hostdev", "network") ||
         has_element(xml, "<disk", "nvme", "nvme");
}

std::string domain_uuid(std::string_view xml) {
  constexpr std::string_view kOpen = "<uuid>";
  constexpr size_t kLength = 36;
  const size_t p = xml.find(kOpen);
  if (p == kNone || p + kOpen.size() + kLength >= xml.size() || xml[p + kOpen.size() + kLength] != '<')
    return {};
  std::string uuid(xml.substr(p + kOpen.size(), kLength));
  for (size_t i = 0; i < kLength; ++i) {
    char& c = uuid[i];
    if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    if (dash ? c != '-' : !hex) return {};
  }
  return uuid;
}

}  // namespace hostdev
