#!/bin/bash
# The OUTER emulator: a newer QEMU than the host's, only unpacked (no maintainer script runs) and started through
# its own ld.so, so nothing is installed here. From the backports: the release before lacks virtio-net sriov-pf.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
DEST=$OUT/qemu
step "unpacking qemu from $SUITE-backports"
bootstrap qemu.log "$DEST" "$SUITE" "$SUITE-backports" -- --variant=extract \
    --essential-hook=true --aptopt="APT::Default-Release \"$SUITE-backports\"" \
    --include=qemu-system-x86,qemu-utils,seabios,libc6,libc-bin
cat > "$DEST/qemu-system-x86_64" << 'W'
#!/bin/bash
# Runs the unpacked QEMU with its own loader and libraries.
R=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
N=$(basename "$0")
export QEMU_MODULE_DIR=$R/usr/lib/x86_64-linux-gnu/qemu
L=(-L "$R/usr/share/qemu" -L "$R/usr/share/seabios" -L "$R/usr/lib/ipxe/qemu")
[ "$N" = qemu-system-x86_64 ] || L=()
exec "$R/usr/lib64/ld-linux-x86-64.so.2" --argv0 "$N" --library-path "$R/usr/lib/x86_64-linux-gnu" "$R/usr/bin/$N" "${L[@]}" "$@"
W
chmod +x "$DEST/qemu-system-x86_64"
ln -sf qemu-system-x86_64 "$DEST/qemu-img"
version=$("$DEST/qemu-system-x86_64" --version | head -1) || die 'the unpacked qemu does not run'
step "$version, $(du -sh "$DEST" | cut -f1)"
