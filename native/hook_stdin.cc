#include "hook_stdin.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "hook_xml.h"
#include "monotonic.h"

namespace hostdev {

namespace {

constexpr size_t kMaxXml = size_t{16} * 1024 * 1024;
// Longer than any start tag that is looked for: so much of what was looked through is looked at again with
// what follows, because a tag may lie across the two.
constexpr size_t kOverlap = 4096;
constexpr size_t kLookAt = size_t{1024} * 1024;

// True when there is something to read (or its end, or an error) before `until`.
bool is_ready(double until) {
  for (;;) {
    const double left = until - monotonic_seconds();
    if (left <= 0) return false;
    pollfd in = {STDIN_FILENO, POLLIN, 0};
    const int ready = poll(&in, 1, static_cast<int>(left * 1000) + 1);
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

void look(DomainInput& input) {
  input.may_take_devices = input.may_take_devices || may_take_devices(input.xml);
}

}  // namespace

DomainInput read_domain_input(double until) {
  DomainInput input;
  std::array<char, 65536> chunk;
  while (is_ready(until)) {
    const ssize_t n = read(STDIN_FILENO, chunk.data(), chunk.size());
    // EAGAIN: whoever made the pipe may have made it non-blocking. It is no end: taking it for one would let
    // a domain with host devices pass.
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n < 0) break;
    if (n == 0) {
      input.whole = true;
      break;
    }
    input.xml.append(chunk.data(), static_cast<size_t>(n));
    if (input.xml.size() > (input.too_large ? kLookAt : kMaxXml)) {
      look(input);
      input.too_large = true;
      input.xml.erase(0, input.xml.size() - kOverlap);
    }
  }
  look(input);
  return input;
}

}  // namespace hostdev
