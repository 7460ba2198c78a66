// `hostdev-native boot`: what the initramfs runs before udev's coldplug, so that a wished device never meets
// its host driver. It reads the table that `hostdev boot install` made, asks identity and guards, and writes
// what it did.
#pragma once

namespace hostdev {

// Words after "boot": nothing, or --root DIR. 2 for other words, else 0 whatever happened: no boot stops
// here. What it does is done by a child that is left alone after a while, since a write to sysfs may hang for
// ever.
int run_boot(int argc, char** argv);

}  // namespace hostdev
