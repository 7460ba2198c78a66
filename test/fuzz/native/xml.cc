// A domain's XML on the hook's stdin: it comes whole, and what is read out of it is what it says.
#include "check.h"
#include "hook_stdin.h"
#include "hook_xml.h"
#include "monotonic.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool kReady = dup2(memfd_create("xml", 0), STDIN_FILENO) == STDIN_FILENO;
  check(kReady, "stdin is a file");
  const auto text = text_of(data, size);
  refill(STDIN_FILENO, text);
  const auto input = hostdev::read_domain_input(hostdev::monotonic_seconds() + 3600);
  check(input.whole && !input.too_large && input.xml == text, "all of it is read");
  check(input.may_take_devices == hostdev::may_take_devices(text), "in pieces as in one");
  if (text.find("<hostdev") != std::string_view::npos) check(input.may_take_devices, "a hostdev is seen");
  const std::string uuid = hostdev::domain_uuid(text);
  check(
      uuid.empty() || (uuid.size() == 36 && uuid.find_first_not_of("0123456789abcdef-") == std::string::npos),
      "a UUID is no path");
  return 0;
}
