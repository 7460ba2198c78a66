/** Rules of what a domain needs around its devices: memory that may be locked, ports to plug into. */
import { freePorts } from './hotplug.ts';
import { memlockNeeded } from './memlock.ts';
import type { Rule } from './rules.ts';

export const ROOM_RULES: readonly Rule[] = [
  {
    id: 'memlock-hard-limit',
    stage: 'advice',
    holds: '<memtune><hard_limit> is no less than what the devices need locked',
    since: null,
    source:
      'libvirt qemu/qemu_domain.c qemuDomainGetMemLockLimitBytes: hard_limit takes the place of what libvirt would set',
    fix: 'take <hard_limit> out, or raise it',
    check: ({ domain }) => {
      const { kib } = memlockNeeded(domain);
      if (kib === null || domain.hardLimitKib === null || domain.hardLimitKib >= kib) return [];
      return [{ part: null, cause: `hard_limit is ${domain.hardLimitKib} KiB, and ${kib} KiB may be locked` }];
    },
  },
  {
    id: 'hotplug-ports',
    stage: 'advice',
    holds: 'a PCI Express guest has a free pcie-root-port for each device that is to be plugged in while it runs',
    since: null,
    source: 'libvirt docs/pci-hotplug',
    fix: "add <controller type='pci' model='pcie-root-port'/>, one for each device",
    check: ({ domain }) => {
      const free = freePorts(domain);
      return free !== null && free <= 0 ? [{ part: null, cause: 'no port is free' }] : [];
    },
  },
];
