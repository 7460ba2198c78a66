# Shared by the image scripts: where things are, where Debian comes from. Sourced, not run.
# OUT (set by build.sh) is the folder being built; nothing outside it is written.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SUITE=${HOSTDEV_VM_SUITE:-trixie}

export BUILD_BEGAN=${BUILD_BEGAN:-$(date +%s)}

step() { printf '[%3ds] vm image: %s\n' "$(($(date +%s) - BUILD_BEGAN))" "$*" >&2; }
die() {
    printf 'vm image: %s\n' "$*" >&2
    exit 1
}

# The mirror is the one this machine's own apt uses (or HOSTDEV_VM_MIRROR, where apt knows no Debian).
apt_site() { # main|security
    local set_by_hand=${HOSTDEV_VM_MIRROR:-}
    [ "$1" = main ] || set_by_hand=${HOSTDEV_VM_SECURITY_MIRROR:-}
    [ -z "$set_by_hand" ] || { echo "$set_by_hand"; return; }
    apt-get indextargets --format '$(ORIGIN)|$(SITE)|$(RELEASE)' 'Created-By: Packages' 'Component: main' |
        awk -F'|' -v kind="$1" '$1 != "" && $1 != "Debian" { next }
            { security = ($3 ~ /-security$/) }
            (kind == "security") == security { print $2; exit }'
}
keyring() { ls /usr/share/keyrings/debian-archive-keyring.gpg /etc/apt/trusted.gpg.d/*.gpg 2>/dev/null | head -1; }
sources() { # suite... -> one-line sources
    local main security s
    main=$(apt_site main)
    security=$(apt_site security)
    [ -n "$main" ] || die 'no Debian mirror in the apt sources of this machine; name one in HOSTDEV_VM_MIRROR'
    for s in "$@"; do
        case $s in
            *-security) [ -z "$security" ] || echo "deb [signed-by=$(keyring)] $security $s main" ;;
            *) echo "deb [signed-by=$(keyring)] $main $s main" ;;
        esac
    done
}
bootstrap() { # log destination suite... [-- mmdebstrap options]: a root from the first suite and the ones beside it
    local log=$OUT/log/$1 dest=$2 list suites=()
    shift 2
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        suites+=("$1")
        shift
    done
    [ $# -eq 0 ] || shift
    list=$(sources "${suites[@]}")
    # `>` and not --logfile: what mmdebstrap says of itself belongs in the log too.
    if ! mmdebstrap --mode=root --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        "$@" "${suites[0]}" "$dest" - <<< "$list" > "$log" 2>&1; then
        tail -15 "$log" >&2
        die "mmdebstrap failed for $(basename "$dest")"
    fi
}
