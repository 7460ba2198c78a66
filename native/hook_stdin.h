// The domain's XML as libvirt hands it to the hook, with a bound on its size and on the time it may take.
#pragma once

#include <string>

namespace hostdev {

struct DomainInput {
  // All of it, when `whole` and not `too_large`.
  std::string xml;
  bool whole = false;
  bool too_large = false;
  // Whether the domain may take host devices, by all that was seen: of one that is too large too.
  bool may_take_devices = false;
};

// Reads stdin to its end, but not beyond `until` (monotonic_seconds). What is larger than 16 MiB is looked
// through and not kept. Never fails: an error of reading leaves it not whole.
DomainInput read_domain_input(double until);

}  // namespace hostdev
