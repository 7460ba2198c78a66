#!/bin/bash
# Makes, once, a bare Debian of SUITE as a tar file, and prints its path. On trixie nodejs is in it, on bookworm there is none that would do.
# usage: root.sh SUITE
set -euo pipefail
CACHE=${HOSTDEV_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hostdev-vm}/roots
mkdir -p "$CACHE"
OUT=$(mktemp -d "$CACHE/.build.XXXXXX")
export OUT
trap 'rm -rf "$OUT"' EXIT
mkdir "$OUT/log"
. "$(dirname "$0")/../vm/image/lib.sh"
KEY=$(cat "$0" "$HERE/lib.sh" | sha256sum | cut -c1-12)
TAR=$CACHE/$1-$KEY.tar
[ -e "$TAR" ] || {
    extra=
    [ "$1" = bookworm ] || extra=,nodejs
    bootstrap root.log "$OUT/root.tar" "$1" "$1-updates" "$1-security" -- --variant=minbase --include="libstdc++6$extra"
    mv "$OUT/root.tar" "$TAR"
}
echo "$TAR"
