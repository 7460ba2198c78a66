// `hostdev-native write`: the process that does the accesses to sysfs that may never return. A write to a
// driver's `unbind` while a guest holds the device waits in D state, where not even SIGKILL ends it; here it
// takes only this process with it, and its parent starts another. Ownership: stdin and stdout are the
// parent's pipes, descriptor 3 is the root; nothing else of the parent's is open here, its stderr above all
// (libvirt reads a hook's stderr to the end).
//
// A request: u32 length of the rest, u32 id, u8 operation, u16 length of the path, path, value. An answer:
// u32 length of the rest, u32 id, i32 errno (0 is success), u8 call (see Call), bytes read. Numbers are
// little-endian. Operations: 'W' one write(2) of the value; 'R' read up to a page; 'F' truncate and rewrite a
// regular file that is not on sysfs; 'X' whether somebody has a block device for himself ("1" or "0");
// 'L' what the kernel knows of a network interface, by its index; 'U' brings one up ("1") or down ("0").
#pragma once

namespace hostdev {

// Serves until end of file on stdin, or until its parent dies, however it does; returns the exit code (2: the
// parent does not speak this protocol).
int run_writer();

}  // namespace hostdev
