#!/bin/bash
# The guest's root: Debian with libvirtd, qemu, driverctl and node, an early network and an early sshd.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
ROOT=$OUT/root
PKGS=systemd-sysv,udev,dbus,kmod,iproute2,procps,util-linux,less,ethtool,busybox-static,xz-utils,openssh-server
PKGS+=,libvirt-daemon-system,libvirt-clients,qemu-system-x86,nodejs
PKGS+=,apparmor,driverctl,pciutils,pci.ids,nvme-cli,jq,strace,hyperfine,e2fsprogs,mount,dmsetup
# What a host may stand on (guards.vm.test.ts): tgt serves iSCSI and nfs-kernel-server NFS from a network namespace.
PKGS+=,btrfs-progs,lvm2,bcache-tools,open-iscsi,tgt,nfs-common,nfs-kernel-server
step "installing the root ($SUITE)"
bootstrap root.log "$ROOT" "$SUITE" "$SUITE-updates" "$SUITE-security" -- --variant=minbase --include="$PKGS"

step 'configuring'
ssh-keygen -q -t ed25519 -N '' -C hostdev-vm -f "$OUT/id_ed25519"
install -d -m 700 "$ROOT/root/.ssh"
cp "$OUT/id_ed25519.pub" "$ROOT/root/.ssh/authorized_keys"
rm -f "$ROOT"/etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N '' -C guest -f "$ROOT/etc/ssh/ssh_host_ed25519_key"
cat > "$ROOT/etc/ssh/sshd_config" << 'C'
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
UseDNS no
MaxSessions 100
MaxStartups 100
SetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
Subsystem sftp internal-sftp
C
echo testbed > "$ROOT/etc/hostname"
echo '127.0.0.1 localhost testbed' > "$ROOT/etc/hosts"
: > "$ROOT/etc/fstab"
chroot "$ROOT" passwd -q -d root

# Early network (a fixed address of QEMU's user network) and ssh: up before the rest, so that the host never has to
# wait for all of systemd's boot.
cat > "$ROOT/etc/systemd/system/vm-net.service" << 'C'
[Unit]
Description=management network
DefaultDependencies=no
After=systemd-udevd.service systemd-tmpfiles-setup.service local-fs.target
Wants=systemd-udevd.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/vm-net
[Install]
WantedBy=sysinit.target
C
cat > "$ROOT/usr/local/sbin/vm-net" << 'C'
#!/bin/sh
# The management NIC is the one with this MAC, whatever its name.
ip link set lo up
modprobe virtio_net 2>/dev/null
for i in $(seq 200); do
    for n in /sys/class/net/*; do
        [ "$(cat "$n/address" 2>/dev/null)" = 52:54:00:7b:00:01 ] || continue
        ip addr add 10.0.2.15/24 dev "${n##*/}"; ip link set "${n##*/}" up
        break 2
    done
    sleep 0.05
done
exit 0
C
chmod +x "$ROOT/usr/local/sbin/vm-net"
cat > "$ROOT/etc/systemd/system/ssh.service" << 'C'
[Unit]
Description=sshd of the test bed
DefaultDependencies=no
After=vm-net.service
Wants=vm-net.service
[Service]
ExecStartPre=/bin/mkdir -p /run/sshd
ExecStart=/usr/sbin/sshd -D -e
Restart=on-failure
[Install]
WantedBy=sysinit.target
C
# Slow things nobody needs here; AppArmor's profiles are loaded by the one test that wants them.
for u in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer systemd-timesyncd.service systemd-pcrphase.service systemd-pcrphase-sysinit.service \
    serial-getty@ttyS0.service getty@tty1.service console-getty.service getty.target \
    systemd-journal-flush.service systemd-update-utmp.service systemd-hwdb-update.service ldconfig.service \
    apparmor.service libvirt-guests.service systemd-machine-id-commit.service ssh.socket systemd-random-seed.service \
    nvmf-autoconnect.service nvmefc-boot-connections.service systemd-network-generator.service \
    virtlockd.socket virtlockd-admin.socket tgt.service iscsid.socket open-iscsi.service nfs-server.service nfs-blkmap.service \
    rpcbind.socket rpcbind.service rpc-statd-notify.service blk-availability.service lvm2-monitor.service; do
    ln -sf /dev/null "$ROOT/etc/systemd/system/$u"
done
# It complains at length of a /proc that a build needs none of.
chroot "$ROOT" systemctl -q enable vm-net.service ssh.service 2>> "$OUT/log/root.log"
chroot "$ROOT" systemctl -q set-default multi-user.target 2>> "$OUT/log/root.log"
mkdir -p "$ROOT/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\n' > "$ROOT/etc/systemd/journald.conf.d/vm.conf"
echo 'b08dfa6083e7567a1921a715000001fb' > "$ROOT/etc/machine-id"
rm -rf "$ROOT"/var/cache/apt/archives/*.deb "$ROOT"/var/lib/apt/lists/*_Packages* "$ROOT"/usr/share/zoneinfo/right
chroot "$ROOT" node --version > /dev/null || die 'node does not run in the guest root'
chroot "$ROOT" dpkg-query -W > "$OUT/packages"
step "root: $(du -sh "$ROOT" | cut -f1), $(wc -l < "$OUT/packages") packages"
