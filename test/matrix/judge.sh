#!/bin/sh
# What the libvirt of this machine says of domains: for each DIR/*.xml a line "id<TAB>ok" or "id<TAB>its error", after two lines with the versions.
# usage: judge.sh DIR [URI]      nothing stays defined; a libvirtd must run where the URI needs one
LC_ALL=C
export LC_ALL
uri=${2:-qemu:///system}
virsh -c "$uri" version --daemon 2>/dev/null | sed -n 's/^Using library: libvirt /#libvirt /p; s/^Running hypervisor: QEMU /#qemu /p'
for file in "$1"/*.xml; do
	id=$(basename "$file" .xml)
	if error=$(virsh -q -c "$uri" define --validate "$file" 2>&1); then
		virsh -q -c "$uri" undefine --nvram "$id" >/dev/null 2>&1 || virsh -q -c "$uri" undefine "$id" >/dev/null 2>&1
		printf '%s\tok\n' "$id"
	else
		printf '%s\t%s\n' "$id" "$(printf '%s' "$error" | grep -v 'Failed to define' | tr '\n' ' ')"
	fi
done
