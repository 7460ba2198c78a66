/** Rules of what a domain needs around its devices: a PCI bus, memory that may be locked, ports to plug into. */

import { safe } from '../../text/safe.ts';
import { freePorts } from '../device/hotplug.ts';
import { memlockNeeded } from '../device/memlock.ts';
import { isQemu, isX86 } from '../domainFacts.ts';
import { hostdevInterfaces, isUsb, pciHostdevs } from './ours.ts';
import type { Rule } from './rules.ts';

/** Machines without PCI. */
const NO_PCI = /^(microvm|isapc)(-|$)/;

export const ROOM_RULES: readonly Rule[] = [
  {
    id: 'machine-pci',
    stage: 'define',
    holds: 'machines without PCI (microvm, isapc) take no device of the host',
    since: null,
    source: 'libvirt conf/domain_addr.c virDomainPCIAddressGetNextAddr (No PCI buses available)',
    fix: 'use q35',
    check: ({ domain }) => {
      if (!isQemu(domain) || !isX86(domain) || !NO_PCI.test(domain.machine ?? '')) return [];
      const [part] = [...pciHostdevs(domain), ...hostdevInterfaces(domain)].filter((p) => !isUsb(p));
      return part ? [{ part, cause: `${safe(domain.machine ?? '')} has no PCI` }] : [];
    },
  },
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
