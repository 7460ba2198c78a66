// simhost MOUNTPOINT: a Linux host with PCI devices as a file system, for tests of the real hostdev below
// `--root MOUNTPOINT`. It is empty at first; what it has is written to .sim/ctl (control.cc). Tests only:
// never shipped.
#include <cstdio>

#include "serve.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    fputs("usage: simhost MOUNTPOINT\n", stderr);
    return 2;
  }
  // Never destroyed: threads of it may outlive main's loop.
  auto* kernel = new simhost::Kernel();
  return simhost::serve(*kernel, argv[1]);
}
