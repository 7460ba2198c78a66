#!/bin/bash
# The distribution's stock kernel, as data: unpacked, not installed, no initramfs is generated.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
ROOT=$OUT/root
A=$OUT/apt
mkdir -p "$A"/etc/apt/{apt.conf.d,preferences.d,sources.list.d,trusted.gpg.d} "$A"/var/{lib/apt/lists/partial,lib/dpkg,cache/apt/archives/partial} "$A/debs"
: > "$A/var/lib/dpkg/status"
sources "$SUITE" "$SUITE-updates" "$SUITE-security" > "$A/etc/apt/sources.list"
aptq() {
    local command=$1
    shift
    "$command" -q -o Dir="$A" -o Dir::State::status="$A/var/lib/dpkg/status" -o APT::Sandbox::User=root "$@"
}
aptq apt-get update > "$OUT/log/apt.log" 2>&1 || {
    tail -5 "$OUT/log/apt.log" >&2
    die 'apt-get update failed'
}
version=$(aptq apt-cache madison linux-image-amd64 | awk -F' *[|] *' '{ print $2 }' | sort -V | tail -1)
img=$(aptq apt-cache show "linux-image-amd64=$version" | grep -oE 'linux-image-[0-9][^ ,(]*-amd64' | grep -v unsigned | head -1)
[ -n "$img" ] || die "no linux-image-amd64 in $SUITE"
kver=${img#linux-image-}
step "kernel $kver"
debs=("$img")
for p in "linux-modules-$kver" "linux-binary-$kver"; do
    if aptq apt-cache show "$p" > /dev/null 2>&1; then debs+=("$p"); fi
done
(cd "$A/debs" && aptq apt-get download "${debs[@]}" >> "$OUT/log/apt.log" 2>&1) || {
    tail -5 "$OUT/log/apt.log" >&2
    die 'the kernel cannot be downloaded'
}
for d in "$A"/debs/*.deb; do dpkg-deb -x "$d" "$A/x"; done
mkdir -p "$OUT/kernel" "$ROOT/usr/lib/modules"
cp "$A"/x/boot/vmlinuz-* "$OUT/kernel/vmlinuz"
cp "$A"/x/boot/config-* "$OUT/kernel/config" 2> /dev/null || true
echo "$kver" > "$OUT/kernel/version"
modules=$A/x/usr/lib/modules/$kver
[ -d "$modules" ] || modules=$A/x/lib/modules/$kver
mv "$modules" "$ROOT/usr/lib/modules/$kver"
# A test bed plays neither sound nor video.
(cd "$ROOT/usr/lib/modules/$kver/kernel" && rm -rf sound drivers/gpu drivers/media drivers/infiniband/hw/[!m]* \
    drivers/iio drivers/staging drivers/net/wireless drivers/bluetooth)
chroot "$ROOT" depmod "$kver"
