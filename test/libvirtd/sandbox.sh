#!/bin/bash
# Process 1 of a sandbox with a libvirtd of its own: all that libvirtd writes lies in the folder $1. Each line of stdin
# is a command, answered by one line. The end of stdin is the end of everything in the sandbox, guests too.
set -eu
dir=$1
mount -t proc proc /proc
mkdir -p "$dir"/{etc,run,lib,cache,log}
# Debian's libvirtd looks for this user before it reads which one is meant.
{ cat /etc/passwd; echo 'libvirt-qemu:x:64055:64055::/:/bin/false'; } > "$dir/passwd"
{ cat /etc/group; echo 'libvirt-qemu:x:64055:'; } > "$dir/group"
cat > "$dir/etc/qemu.conf" << 'CONF'
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
remember_owner = 0
CONF
cat > "$dir/etc/libvirtd.conf" << 'CONF'
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
CONF
for at in passwd:/etc/passwd group:/etc/group etc:/etc/libvirt run:/run lib:/var/lib cache:/var/cache log:/var/log; do
  mount --bind "$dir/${at%%:*}" "${at#*:}"
done
pid=
while read -r word guest; do
  case $word in
    start)
      libvirtd < /dev/null > "$dir/libvirtd.log" 2>&1 &
      pid=$!
      echo "$pid"
      ;;
    STOP | CONT) kill -s "$word" "$pid" && echo done ;;
    # Done when it has ended.
    KILL | TERM)
      kill -s "$word" "$pid"
      wait "$pid" || true
      echo done
      ;;
    pid) kill -s 0 "$pid" 2> /dev/null && echo "$pid" || echo none ;;
    kill-guest) kill -s KILL "$(cat "/run/libvirt/qemu/$guest.pid")" && echo done || echo none ;;
  esac
done
