// One function an operation, made on a thread of libvirt_client.cc's; the rows that each gives:
//   open  texts [uri], flags 1 read-only   ["number of the connection", "its URI"]
//   close                                  none
//   versions                               [library, libvirt of the daemon, hypervisor] as decimal numbers
//   domains                                [name, uuid, "1" running, "1" persistent, live XML, persistent
//   XML] each networks                               [name, "1" active, XML] each xml   texts [uuid], flags
//   of virDomainGetXMLDesc   [XML] define texts [XML], flags of virDomainDefineXMLFlags   [uuid, persistent
//   XML as libvirt keeps it] undefine texts [uuid]                  none native texts [format, XML] [what the
//   hypervisor would be started with] events                                 none; the connection's events
//   come from then on
#pragma once

#include "libvirt_client.h"

namespace hostdev::libvirt {

Answer perform(const Request& request);

}  // namespace hostdev::libvirt
