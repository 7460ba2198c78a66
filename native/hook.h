// libvirt's qemu hook. What libvirt runs must answer when node is missing, killed or out of memory, and must
// cost a domain without host devices nothing: so this decides by operation first, looks at the XML, and only
// then starts node, as a child that it can leave behind. Rules, and why:
// - Only `prepare` and `start` may fail: a failing `started` or `reconnect` kills a running guest, and
// nothing can be said in the others.
// - stdout stays empty: for migrate and restore libvirt takes it as the new XML.
// - The child holds none of libvirt's descriptors: libvirt reads stderr to its end, and a child left in D
// state would hold virsh for ever.
// - A guest's calls go one after another: the child takes the domain's lock before it becomes node and has it
// until it ends. A release that
//   takes longer than libvirt may wait goes on with the lock held, and the next prepare waits for it.
#pragma once

namespace hostdev {

// argv: [--conf FILE] NAME OPERATION SUBOPERATION EXTRA. Returns the exit code.
int run_hook(int argc, char** argv);

}  // namespace hostdev
