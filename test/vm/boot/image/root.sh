#!/bin/bash
# The root of the other suites' image, and in it what a host that boots from its own disk has: kernel and initramfs in
# /boot, both makers of an initramfs, an fstab, a default route.
set -euo pipefail
. "$(dirname "$0")/../../image/lib.sh"
CFG=$(cd "$(dirname "$0")" && pwd)/grub.cfg
ROOT=$OUT/root
A=$OUT/apt
kver=$(cat "$BASE/kernel/version")
step 'unpacking the root of the other image'
mkdir "$ROOT"
debugfs -R "rdump / $ROOT" "$BASE/root.img" > "$OUT/log/rdump.log" 2>&1
[ -x "$ROOT/usr/bin/dpkg" ] || die 'the root did not come out of the other image'
rm -rf "$ROOT/lost+found"

step 'packages'
mkdir -p "$A"/etc/apt/{apt.conf.d,preferences.d,sources.list.d,trusted.gpg.d} \
    "$A"/var/{lib/apt/lists/partial,cache/apt/archives/partial} "$A/debs"
sources "$SUITE" "$SUITE-updates" "$SUITE-security" > "$A/etc/apt/sources.list"
aptq() {
    local command=$1
    shift
    "$command" -q -y -o Dir="$A" -o Dir::State::status="$ROOT/var/lib/dpkg/status" -o APT::Sandbox::User=root \
        -o APT::Install-Recommends=false "$@"
}
{
    aptq apt-get update
    # dracut-core and not dracut, which would take initramfs-tools' place.
    aptq apt-get install --download-only initramfs-tools dracut-core cpio zstd
    cd "$A/debs" && aptq apt-get download grub-common grub-pc-bin
} > "$OUT/log/apt.log" 2>&1 || {
    tail -5 "$OUT/log/apt.log" >&2
    die 'the packages cannot be downloaded'
}
mkdir "$ROOT/debs"
cp "$A"/var/cache/apt/archives/*.deb "$ROOT/debs/"
mount -t proc proc "$ROOT/proc"
mount --bind /dev "$ROOT/dev"
in_root() { chroot "$ROOT" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive "$@"; }
# No mail about a boot that has no initramfs yet.
in_root sh -c 'dpkg -i /debs/*.deb' > "$OUT/log/dpkg.log" 2>&1 || {
    tail -5 "$OUT/log/dpkg.log" >&2
    die 'the packages do not install'
}
rm -r "$ROOT/debs"

step 'kernel and initramfs'
cp "$BASE/kernel/vmlinuz" "$ROOT/boot/vmlinuz-$kver"
cp "$BASE/kernel/config" "$ROOT/boot/config-$kver"
# What no machine of ours has: every module in the initramfs is read, unpacked and indexed under emulation. The host
# drivers of what the machines do have come along, as on every Debian (MODULES=most).
(cd "$ROOT/usr/lib/modules/$kver/kernel" && rm -rf drivers/{mmc,firewire,infiniband,scsi/[!sv]*,usb/[!hc]*,hid,input,pcmcia,mtd} \
    drivers/{message,md/bcache,md/dm-[!m]*,nfc,isdn,ata/pata*,ata/sata*} fs/{btrfs,xfs,f2fs,ocfs2,gfs2,ceph,smb,nfsd,jfs,reiserfs} \
    net/{bluetooth,wireless,mac80211,can,batman-adv,ceph} arch/x86/kvm)
find "$ROOT/usr/lib/modules/$kver/kernel/drivers/net" -mindepth 1 -maxdepth 1 ! -name ethernet ! -name virtio_net* \
    ! -name net_failover* ! -name tun* ! -name macv* ! -name veth* ! -name dummy* ! -name bonding ! -name mdio* -exec rm -rf {} +
find "$ROOT/usr/lib/modules/$kver/kernel/drivers/net/ethernet" -mindepth 1 -maxdepth 1 ! -name intel -exec rm -rf {} +
in_root depmod "$kver"
cat > "$ROOT/etc/fstab" << 'C'
UUID=b08dfa60-83e7-567a-1921-a715000001fb / ext4 errors=remount-ro 0 1
C
sed -i 's/^COMPRESS=.*/COMPRESS=zstd/' "$ROOT/etc/initramfs-tools/initramfs.conf"
echo 'COMPRESSLEVEL=1' >> "$ROOT/etc/initramfs-tools/initramfs.conf"
in_root update-initramfs -c -k "$kver" > "$OUT/log/initramfs.log" 2>&1 || {
    tail -5 "$OUT/log/initramfs.log" >&2
    die 'the initramfs cannot be made'
}
# Names that no version is in: GRUB's menu needs no making.
ln -s "vmlinuz-$kver" "$ROOT/boot/vmlinuz"
ln -s "initrd.img-$kver" "$ROOT/boot/initrd.img"

# A host has a default route; the guards go by it.
sed -i 's/^ *ip addr add .*/&; ip route add default via 10.0.2.2 dev "${n##*\/}"/' "$ROOT/usr/local/sbin/vm-net"
grep -q 'route add default' "$ROOT/usr/local/sbin/vm-net" || die 'vm-net has changed'

step 'boot loader'
for d in "$A"/debs/*.deb; do dpkg-deb -x "$d" "$ROOT/grub"; done
mkdir -p "$ROOT/boot/grub"
cp "$CFG" "$ROOT/boot/grub/grub.cfg"
in_root /grub/usr/bin/grub-mkimage -d /grub/usr/lib/grub/i386-pc -O i386-pc -o /grub/core.img -p '(hd0,msdos1)/boot/grub' \
    biosdisk part_msdos ext2 normal configfile linux smbios eval test echo serial terminal
cp "$ROOT/grub/core.img" "$ROOT/grub/usr/lib/grub/i386-pc/boot.img" "$OUT/"
rm -r "$ROOT/grub"
umount "$ROOT/proc" "$ROOT/dev"
step "root: $(du -sh "$ROOT" | cut -f1), initramfs $(du -hL "$ROOT/boot/initrd.img" | cut -f1)"
