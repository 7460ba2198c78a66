#!/bin/bash
# dracut.modules(7): puts into the initramfs what binds wished devices before udev's coldplug ('hostdev boot install').

table=/var/lib/hostdev/boot.table

# Without a table it has no part in any initramfs.
check() {
  [[ -s ${dracutsysrootdir-}$table && -x ${dracutsysrootdir-}/usr/bin/hostdev-native ]] || return 1
  return 0
}

depends() {
  return 0
}

# What the table asks modprobe for, on a host-only initramfs too, where the host uses none of these.
installkernel() {
  local module
  for module in $(sed -n 's/^device \([^ ]* \)\{10\}\([^ ]*\) [^ ]*$/\2/p' "${dracutsysrootdir-}$table" | sort -u); do
    if [[ $module != - ]]; then
      hostonly='' instmods "$module"
    fi
  done
  return 0
}

install() {
  inst /usr/bin/hostdev-native
  inst_simple "$table"
  inst_hook pre-udev 10 "$moddir/hostdev-pre-udev.sh"
}
