#!/bin/bash
# Builds, once, the disk of the boot suite on top of the image of the others, and prints the folder it lies in:
#   <cache>/boot/<key>/disk.img: an MBR, GRUB, and one ext4 with a journal: Debian with kernel and initramfs in /boot
# The key is a hash of the other image's and of these scripts.
# usage: build.sh FOLDER-OF-THE-OTHER-IMAGE
set -euo pipefail
. "$(dirname "$0")/../../image/lib.sh"
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
BASE=$1
CACHE=$(dirname "$BASE")/boot
DEST=$CACHE/$({ basename "$BASE"; cat "$HERE"/*; } | sha256sum | cut -c1-16)
if [ -e "$DEST/.done" ]; then
    echo "$DEST"
    exit 0
fi
[ "$(id -u)" = 0 ] || die 'building the image needs root (a built one boots as any user that can read it)'
for tool in debugfs mke2fs dpkg-deb apt-get unshare; do
    command -v "$tool" > /dev/null || die "$tool is missing (e2fsprogs, dpkg, apt, util-linux)"
done
# A mount namespace of its own: whatever a killed build leaves mounted goes with it.
[ -n "${HOSTDEV_VM_INNER:-}" ] || HOSTDEV_VM_INNER=1 exec unshare --mount --propagation private "$0" "$@"

mkdir -p "$CACHE"
exec 9> "$CACHE/.lock"
flock 9
if [ -e "$DEST/.done" ]; then
    echo "$DEST"
    exit 0
fi
rm -rf --one-file-system "$CACHE"/.build.*
free=$(df --output=avail -k "$CACHE" | tail -1)
[ "$free" -ge $((6 * 1024 * 1024)) ] || die "needs about 6 GB free in $CACHE, $((free / 1024 / 1024)) GB are"
OUT=$(mktemp -d "$CACHE/.build.XXXXXX")
export OUT BASE
chmod 755 "$OUT"
mkdir "$OUT/log"
cleanup() {
    local status=$?
    # Nothing of the host's may still be bound in there when it is removed.
    awk -v p="$OUT/" 'index($2, p) == 1 { print $2 }' /proc/self/mounts | sort -r | while read -r m; do umount -l "$m"; done
    if [ "$status" != 0 ] && [ -d "$OUT/log" ]; then
        rm -rf "$CACHE/failed.log"
        cp -r "$OUT/log" "$CACHE/failed.log"
        echo "vm image: the build failed (status $status); its logs are in $CACHE/failed.log" >&2
    fi
    rm -rf --one-file-system "$OUT"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

step "building $DEST (about 2 minutes)"
"$HERE/root.sh"
"$HERE/disk.sh"
rm -rf --one-file-system "$OUT/root" "$OUT/apt"
touch "$OUT/.done"
rm -rf --one-file-system "$DEST"
mv "$OUT" "$DEST"
rm -rf "$CACHE/failed.log"
step "ready: $DEST, $(du -sh "$DEST" | cut -f1)"
echo "$DEST"
