/** Rules of what a domain needs around its devices: a PCI bus, memory that may be locked, ports to plug into. */

import { freePorts } from '../device/hotplug.ts';
import { memlockNeeded } from '../device/memlock.ts';
import { type DomainFacts, isQemu, isX86 } from '../domainFacts.ts';
import { child } from '../xml/dom.ts';
import type { Rule } from './rules.ts';

/** Machines without PCI, and what libvirt adds to a domain that needs it all the same. */
const NO_PCI = /^(microvm|isapc)(-|$)/;

/** What of a domain on such a machine wants a PCI bus; null when nothing is known to. */
function needsPci(d: DomainFacts): string | null {
  const { root } = d;
  const devices = child(root, 'devices');
  const [device] = [...d.hostdevs, ...d.interfaces].filter((p) => p.element.getAttribute('type') !== 'usb');
  if (device) return device.where;
  const balloon = devices && child(devices, 'memballoon');
  if (balloon?.getAttribute('model') !== 'none') return 'the memballoon, which is there without a word';
  const usb = d.controllers.find((c) => c.element.getAttribute('type') === 'usb');
  if (d.machine?.startsWith('microvm') && usb?.element.getAttribute('model') !== 'none')
    return 'the USB controller, which is there without a word';
  return null;
}

export const ROOM_RULES: readonly Rule[] = [
  {
    id: 'machine-pci',
    stage: 'define',
    holds:
      'machines without PCI (microvm, isapc) have no device that needs it; a memballoon, and on microvm a USB controller, are added where the XML does not say none',
    since: null,
    source: 'libvirt conf/domain_addr.c virDomainPCIAddressGetNextAddr (No PCI buses available)',
    fix: 'use q35',
    check: ({ domain }) => {
      if (!isQemu(domain) || !isX86(domain) || !NO_PCI.test(domain.machine ?? '')) return [];
      const needs = needsPci(domain);
      return needs === null ? [] : [{ part: null, cause: `${domain.machine} has no PCI for ${needs}` }];
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
