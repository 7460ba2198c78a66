#include "hook_xml.h"

namespace hostdev {

namespace {

constexpr size_t kNone = std::string_view::npos;

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

// True when the start tag at `at` (just after the element's name) has type= one of the three.
bool has_type(std::string_view xml, size_t at) {
  const size_t end = xml.find('>', at);
  const auto tag = xml.substr(at, end == kNone ? kNone : end - at);
  for (size_t p = tag.find("type"); p != kNone; p = tag.find("type", p + 1)) {
    if (p == 0 || !is_space(tag[p - 1])) continue;
    size_t v = p + 4;
    while (v < tag.size() && (is_space(tag[v]) || tag[v] == '=')) ++v;
    if (v >= tag.size() || (tag[v] != '\'' && tag[v] != '"')) continue;
    const size_t close = tag.find(tag[v], v + 1);
    const auto value = tag.substr(v + 1, close == kNone ? kNone : close - v - 1);
    if (value == "hostdev" || value == "nvme" || value == "network") return true;
  }
  return false;
}

bool element_with_type(std::string_view xml, std::string_view name) {
  for (size_t p = xml.find(name); p != kNone; p = xml.find(name, p + 1)) {
    if (has_type(xml, p + name.size())) return true;
  }
  return false;
}

}  // namespace

bool may_take_devices(std::string_view xml) {
  return xml.find("<hostdev") != kNone || element_with_type(xml, "<interface") ||
         element_with_type(xml, "<disk");
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
