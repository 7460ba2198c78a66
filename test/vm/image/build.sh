#!/bin/bash
# Builds, once, what the VM suite boots, and prints the folder it lies in:
#   <cache>/<key>/{qemu/,kernel/{vmlinuz,initrd,version},root.img,id_ed25519,packages}
# The key is a hash of these scripts, the module sources and the suite, so a changed script builds anew and an
# unchanged one costs nothing.
# usage: build.sh          build if need be, print the folder
#        build.sh --path   print the folder only (it may not exist)
# HOSTDEV_VM_CACHE, HOSTDEV_VM_SUITE, HOSTDEV_VM_MIRROR, HOSTDEV_VM_SECURITY_MIRROR, HOSTDEV_INSTALL=1
set -euo pipefail
. "$(dirname "$0")/lib.sh"

CACHE=${HOSTDEV_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hostdev-vm}
KEY=$(cd "$HERE/.." && { echo "$SUITE"; find image modules -type f | LC_ALL=C sort | while read -r f; do sha256sum "$f"; done; } |
    sha256sum | cut -c1-16)
DEST=$CACHE/$KEY
if [ "${1:-}" = --path ]; then
    echo "$DEST"
    exit 0
fi

need=()
tool() { command -v "$1" > /dev/null || need+=("$2"); }
tools() { # ready|build: what running a machine needs, what building an image needs besides
    need=()
    tool ssh openssh-client
    tool setpriv util-linux
    tool tar tar
    if [ "$1" = build ]; then
        tool flock util-linux
        tool unshare util-linux
        tool setsid util-linux
        tool apt-get apt
        tool dpkg-deb dpkg
        tool ssh-keygen openssh-client
        tool mmdebstrap mmdebstrap
        tool mke2fs e2fsprogs
        tool xz xz-utils
        [ -n "$(keyring)" ] || need+=(debian-archive-keyring)
    fi
}
want() {
    tools "$1"
    [ ${#need[@]} -gt 0 ] || return 0
    local list
    list=$(printf '%s\n' "${need[@]}" | sort -u | tr '\n' ' ')
    if [ "$(id -u)" = 0 ] && { [ "${CI:-}" = true ] || [ "${HOSTDEV_INSTALL:-}" = 1 ]; }; then
        step "installing $list"
        # shellcheck disable=SC2086
        { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $list; } >&2
        tools "$1"
        [ ${#need[@]} -eq 0 ] || die "still missing: ${need[*]}"
    else
        die "missing Debian packages: ${list% } (apt-get install them, or run as root with HOSTDEV_INSTALL=1)"
    fi
}

if [ -e "$DEST/.done" ]; then
    want ready
    echo "$DEST"
    exit 0
fi
[ "$(uname -m)" = x86_64 ] || die "an x86_64 host is needed, this is $(uname -m)"
want build
[ "$(id -u)" = 0 ] || die 'building the image needs root (a built one boots as any user that can read it)'

# A mount namespace of its own: whatever a killed build leaves mounted goes with it.
if [ -z "${HOSTDEV_VM_INNER:-}" ]; then
    if unshare --mount true 2> /dev/null; then
        HOSTDEV_VM_INNER=1 exec unshare --mount --propagation private "$0" "$@"
    fi
fi

mkdir -p "$CACHE"
exec 9> "$CACHE/.lock"
if ! flock -n 9; then
    step 'another build runs, waiting for it'
    flock 9
fi
if [ -e "$DEST/.done" ]; then
    echo "$DEST"
    exit 0
fi
for old in "$CACHE"/*/.done; do
    [ -e "$old" ] && step "an older image lies in $(dirname "$old") (not removed)"
done
# The lock is ours, so a build folder that exists belongs to a build that was killed.
rm -rf --one-file-system "$CACHE"/.build.*
free=$(df --output=avail -k "$CACHE" | tail -1)
[ "$free" -ge $((6 * 1024 * 1024)) ] ||
    die "needs about 6 GB free in $CACHE, $((free / 1024 / 1024)) GB are (HOSTDEV_VM_CACHE moves it)"

OUT=$(mktemp -d "$CACHE/.build.XXXXXX")
export OUT
chmod 755 "$OUT"
mkdir "$OUT/log"
cleanup() {
    local status=$?
    # Nothing of the host's may still be bound in there when it is removed.
    awk -v p="$OUT/" 'index($2, p) == 1 { print $2 }' /proc/self/mounts | sort -r | while read -r m; do
        umount -l "$m" 2> /dev/null || true
    done
    if [ "$status" != 0 ] && [ -d "$OUT/log" ]; then
        rm -rf "$CACHE/failed.log"
        cp -r "$OUT/log" "$CACHE/failed.log"
        echo "vm image: the build failed (status $status); its logs are in $CACHE/failed.log" >&2
    fi
    rm -rf --one-file-system "$OUT"
}
# A stage runs in a session of its own, so that all of it can be ended; bash alone would first wait for it.
stage=
run() {
    setsid "$@" &
    stage=$!
    wait "$stage"
    stage=
}
abandon() {
    if [ -n "$stage" ]; then
        kill -TERM -- "-$stage" 2> /dev/null || true
        wait "$stage" || true
    fi
    exit "$1"
}
trap cleanup EXIT
trap 'abandon 130' INT
trap 'abandon 143' TERM HUP

step "building $DEST (about 2 minutes)"
for name in qemu root kernel modules initrd disk; do run "$HERE/$name.sh"; done
rm -rf --one-file-system "$OUT/root" "$OUT/builder" "$OUT/apt"
touch "$OUT/.done"
rm -rf --one-file-system "$DEST"
mv "$OUT" "$DEST"
rm -rf "$CACHE/failed.log"
step "ready: $DEST, $(du -sh "$DEST" | cut -f1)"
echo "$DEST"
