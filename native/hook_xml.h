// The little that the hook looks at in a domain's XML before it starts node. libvirt wrote the XML, so its
// shape is known, but names and metadata in it are users': nothing here decides more than "node should look
// at this".
#pragma once

#include <string>
#include <string_view>

namespace hostdev {

// True when the domain may take host devices: a <hostdev>, an <interface> of type hostdev or (its pool may
// have host devices) network, or a <disk> of type nvme.
bool may_take_devices(std::string_view xml);

// The text of the first <uuid>, lower case, empty when it is none. Only <name> stands before it, and there
// `<` is written `&lt;`.
std::string domain_uuid(std::string_view xml);

}  // namespace hostdev
