#!/bin/bash
# root -> disk.img (sparse): GRUB in the gap before the one partition, which is ext4 with a journal.
set -euo pipefail
. "$(dirname "$0")/../../image/lib.sh"
SIZE_MIB=4096
truncate -s "${SIZE_MIB}M" "$OUT/disk.img"
bytes() { local hex; hex=$(printf '%08x' "$1"); printf "\\x${hex:6:2}\\x${hex:4:2}\\x${hex:2:2}\\x${hex:0:2}"; }
# One entry of the partition table: bootable, Linux, from sector 2048 to the end.
{
    printf '\x80\xfe\xff\xff\x83\xfe\xff\xff'
    bytes 2048
    bytes $((SIZE_MIB * 2048 - 2048))
} | dd of="$OUT/disk.img" bs=1 seek=446 conv=notrunc status=none
printf '\x55\xaa' | dd of="$OUT/disk.img" bs=1 seek=510 conv=notrunc status=none
mke2fs -q -t ext4 -E offset=1048576,lazy_itable_init=1,nodiscard -m 0 -L root -U b08dfa60-83e7-567a-1921-a715000001fb \
    -d "$OUT/root" "$OUT/disk.img" "$((SIZE_MIB - 1))M"
# boot.img reads core.img from sector 1 on, and that the rest of itself from sector 2: as grub-mkimage leaves them.
dd if="$OUT/boot.img" of="$OUT/disk.img" bs=440 count=1 conv=notrunc status=none
[ "$(stat -c %s "$OUT/core.img")" -lt $((2047 * 512)) ] || die 'GRUB is larger than the gap'
dd if="$OUT/core.img" of="$OUT/disk.img" bs=512 seek=1 conv=notrunc status=none
rm "$OUT/boot.img" "$OUT/core.img"
step "disk.img: $(du -h "$OUT/disk.img" | cut -f1) used"
