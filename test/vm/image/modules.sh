#!/bin/bash
# Variant drivers, built against the guest kernel's headers in a throw-away root with a compiler: ours (../modules)
# for the emulated igb VF and NVMe, and the kernel's own virtio one, which Debian's kernel leaves out.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
ROOT=$OUT/root
B=$OUT/builder
kver=$(cat "$OUT/kernel/version")
step 'a root with a compiler and the kernel headers'
bootstrap builder.log "$B" "$SUITE" "$SUITE-updates" "$SUITE-security" -- --variant=minbase \
    --include="gcc,make,libc6-dev,kmod,xz-utils,perl,linux-source,linux-headers-$kver"
src=$(ls "$B"/usr/src/linux-source-*.tar.xz | head -1)
base=$(basename "${src%.tar.xz}")
mkdir -p "$B/src"
tar -C "$B/src" -xJf "$src" "$base/drivers/vfio"
cp -r "$HERE/../modules" "$B/src/ours"
cp -r "$B/src/$base/drivers/vfio/pci/virtio" "$B/src/virtio"
updates=$ROOT/usr/lib/modules/$kver/updates
mkdir -p "$updates"
build() { # folder make-variables...
    local folder=$1 log=$OUT/log/module-$1.log
    shift
    chroot "$B" make -s -C "/usr/src/linux-headers-$kver" M="/src/$folder" "$@" modules > "$log" 2>&1 || return 1
    find "$B/src/$folder" -name '*.ko' -exec cp {} "$updates/" \;
}
build ours || {
    tail -15 "$OUT/log/module-ours.log" >&2
    die 'our variant drivers do not build'
}
build virtio CONFIG_VIRTIO_VFIO_PCI=m CONFIG_VIRTIO_VFIO_PCI_ADMIN_LEGACY=y ||
    step "virtio_vfio_pci does not build, going on without: $(grep -m1 -iE 'error|undefined' "$OUT/log/module-virtio.log")"
chroot "$ROOT" depmod "$kver"
step "modules: $(cd "$updates" && echo *)"
