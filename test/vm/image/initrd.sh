#!/bin/bash
# A small initrd: load the few modules the root disk needs, mount it, go. With `hostdev.probe` on the kernel's
# command line it only says so and powers off: the proof that an accelerator can run a user space at all.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
ROOT=$OUT/root
kver=$(cat "$OUT/kernel/version")
T=$OUT/apt/initrd
mkdir -p "$T"/{bin,dev,proc,sys,m,new}
cp "$ROOT/usr/bin/busybox" "$T/bin/busybox"
ln -s busybox "$T/bin/sh"
chroot "$ROOT" modprobe -S "$kver" --show-depends -a virtio_pci virtio_iommu virtio_blk ext4 crc32c_generic 2> /dev/null |
    awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r f; do
    name=$(basename "$f")
    case $f in
        *.xz) name=${name%.xz}; xz -dc "$ROOT$f" > "$T/m/$name" ;;
        *.zst) name=${name%.zst}; zstd -qdc "$ROOT$f" > "$T/m/$name" ;;
        *) cp "$ROOT$f" "$T/m/$name" ;;
    esac
    echo "$name"
done > "$T/m/list"
[ -s "$T/m/list" ] || die 'no modules for the initrd'
cat > "$T/init" << 'I'
#!/bin/sh
B=/bin/busybox
$B mount -t proc p /proc; $B mount -t sysfs s /sys; $B mount -t devtmpfs d /dev
case "$($B cat /proc/cmdline)" in *hostdev.probe*) echo "hostdev-probe: shell"; $B poweroff -f ;; esac
while read -r m; do $B insmod /m/$m; done < /m/list
n=0; while [ ! -b /dev/vda ] && [ $n -lt 200 ]; do $B sleep 0.05; n=$((n+1)); done
$B mount -t ext4 -o rw,noatime /dev/vda /new || { echo "no root disk"; $B poweroff -f; }
$B mount --move /dev /new/dev; $B mount --move /proc /new/proc; $B mount --move /sys /new/sys
exec $B switch_root /new /sbin/init
I
chmod +x "$T/init"
(cd "$T" && find . | "$ROOT/usr/bin/busybox" cpio -o -H newc 2> /dev/null) > "$OUT/kernel/initrd"
step "initrd: $(du -h "$OUT/kernel/initrd" | cut -f1)"
