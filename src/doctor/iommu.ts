/** The IOMMU in firmware and kernel, and the remapping of interrupts. */

import { architecture } from '../host/architecture.ts';
import { interruptRemapping, NO_REMAPPING, unsafeInterrupts } from '../host/interrupts.ts';
import { firmwareIommu, IOMMU_TABLES, iommuState, wordsOff } from '../host/iommu.ts';
import { reservedRegions } from '../pci/groups.ts';
import { isVirtioIommu } from '../pci/noGroup.ts';
import { groupMembers } from '../pci/vfio.ts';
import { commandFix, firmwareFix } from './fix.ts';
import { modprobeFix } from './initramfs.ts';
import { kernelWords, removeDirective } from './kernelLine.ts';
import type { Look } from './look.ts';
import { checkNoGroup } from './noGroup.ts';
import { type Draft, finding } from './table.ts';

/** What an IOMMU is called in firmware settings. */
const FIRMWARE =
  'Intel: VT-d (or "Virtualization Technology for Directed I/O"); AMD: IOMMU (or AMD-Vi, under NBIO or CPU); Arm: SMMU: Enabled';

export function checkIommu(look: Look): Draft[] {
  const state = look.quiet('IOMMU', () => iommuState(look.host));
  if (state === null) return [];
  return [
    ...(state.on
      ? [...checkNoGroup(look), ...checkRemapping(look), ...checkReserved(look), ...checkTranslatedHost(look)]
      : checkOff(look)),
    ...checkWords(look),
  ];
}

function checkOff(look: Look): Draft[] {
  const { host } = look;
  const words = look.cmdline;
  const firmware = look.quiet(`/${host.acpiTables}`, () => firmwareIommu(host));
  const tables = firmware?.kind === 'acpi' ? firmware.tables : null;
  const found = tables ?? [];
  const off = wordsOff(words);
  // Where the kernel was built without INTEL_IOMMU_DEFAULT_ON, taking the "off" away is not enough.
  const add = found.includes('DMAR') ? ['intel_iommu=on'] : [];
  const groups = look.quiet('IOMMU groups', () => host.list(host.iommuGroups)) ?? [];
  if (groups.length > 0)
    return [
      finding(
        'iommu-noiommu',
        `/${host.iommuGroups}`,
        "vfio's enable_unsafe_noiommu_mode is on: its groups protect nothing, and libvirt looks for others",
        [...modprobeFix(look, 'options vfio enable_unsafe_noiommu_mode=0'), ...kernelWords({ add })],
      ),
    ];
  if (off.length > 0)
    return [
      finding(
        'iommu-cmdline',
        `/${host.cmdline}`,
        `the kernel command line says ${off.join(' ')}`,
        kernelWords({ add, remove: off }),
      ),
    ];
  const logged = commandFix(
    "dmesg | grep -iE 'iommu|AMD-Vi|smmu|viot'",
    'the kernel says there why it does not use it',
  );
  if (firmware?.kind === 'built-in')
    return [
      finding('iommu-kernel', `/${host.iommuGroups}`, `${firmware.what}, and the kernel made no IOMMU groups`, [
        logged,
      ]),
    ];
  if (firmware?.kind === 'device-tree')
    return [
      finding(
        'iommu-firmware',
        `/${host.deviceTree}`,
        "the kernel made no IOMMU groups from the firmware's device tree: it names no IOMMU for PCI (iommu-map), or its driver is missing",
        [logged],
      ),
    ];
  if (tables === null) look.missed(`/${host.acpiTables}`, 'not there: firmware tables are not measured');
  if (tables === null || found.length === 0)
    return [
      finding(
        'iommu-firmware',
        `/${host.acpiTables}`,
        tables === null
          ? 'the kernel has no IOMMU groups, and the firmware tables are not there to look at'
          : 'none of the tables DMAR, IVRS, IORT and VIOT is there',
        [firmwareFix(FIRMWARE)],
      ),
    ];
  const names = found.map((t) => `${t} (${IOMMU_TABLES[t]})`).join(', ');
  return [
    finding(
      'iommu-kernel',
      `/${host.acpiTables}/${found[0]}`,
      `the firmware has ${names}, and the kernel made no IOMMU groups`,
      add.length > 0 ? kernelWords({ add: [...add, 'iommu=pt'] }) : [logged],
    ),
  ];
}

function checkRemapping(look: Look): Draft[] {
  const remapping = interruptRemapping(look.host);
  const unsafe = unsafeInterrupts(look.host);
  if (remapping.state === null) look.missed('interrupt remapping', remapping.why);
  if (remapping.state === 'on')
    return unsafe.map((u) =>
      finding(
        'unsafe-interrupts-needless',
        u.where,
        `${u.module} allow_unsafe_interrupts is on and nothing needs it: ${remapping.why}`,
        [
          ...u.directives.flatMap((d) => removeDirective(look, d)),
          ...(u.directives.length > 0 ? [] : modprobeFix(look, `options ${u.module} allow_unsafe_interrupts=0`)),
        ],
      ),
    );
  if (remapping.state === null && unsafe.length === 0) return [];
  const why =
    remapping.state === null
      ? `whether interrupts are remapped is not measured (${remapping.why})`
      : isVirtioIommu(look.host)
        ? `the IOMMU is a virtio-iommu, which remaps no interrupts (${remapping.why})`
        : remapping.why;
  const words = look.cmdline.filter((w) => NO_REMAPPING.test(w));
  if (unsafe.length > 0)
    return [
      finding(
        'unsafe-interrupts',
        unsafe.map((u) => u.where).join(' '),
        `${why}; ${unsafe.map((u) => u.module).join(', ')} allow_unsafe_interrupts is on: every guest with a device can raise interrupts of the host and stop or confuse it, so only trusted guests may have one`,
        remappingFix(look, words),
      ),
    ];
  return [
    finding('interrupt-remapping', 'interrupt remapping', why, [
      ...remappingFix(look, words),
      // The last resort, and it says what it costs.
      ...modprobeFix(look, 'options vfio_iommu_type1 allow_unsafe_interrupts=1').map((f) => ({
        ...f,
        after: `${f.after}. Only where every guest with a device is trusted: it could raise any interrupt of the host`,
      })),
    ]),
  ];
}

function remappingFix(look: Look, words: string[]): Draft['fix'] {
  if (words.length > 0) return kernelWords({ remove: words });
  if (isVirtioIommu(look.host))
    return [
      {
        tool: 'libvirt',
        where: "this machine's own domain XML, on its host",
        line: "<iommu model='intel'><driver intremap='on'/></iommu>",
        present: true,
        after: 'stop and start this machine',
      },
    ];
  // An Arm machine has an ITS or it has none: there is nothing to switch on.
  return architecture(look.host) === 'arm'
    ? []
    : [firmwareFix('Interrupt Remapping: Enabled; x2APIC opt-out: Disabled')];
}

/**
 * Groups whose reserved regions the kernel holds to (drivers/iommu/iommu.c require_direct; Intel's
 * device_is_rmrr_locked before 6.6).
 */
function checkReserved(look: Look): Draft[] {
  const ids = [...new Set(look.inventory.devices.flatMap((d) => d.iommu_group ?? []))].sort((a, b) => a - b);
  return ids.flatMap((id): Draft[] => {
    const regions = look.quiet(`IOMMU group ${id}`, () => reservedRegions(look.host, id)) ?? [];
    const direct = regions.filter((r) => r.type === 'direct');
    if (direct.length === 0) return [];
    const devices = groupMembers(look.inventory, id).map((d) => d.address);
    return [
      finding(
        'reserved-direct',
        `IOMMU group ${id}`,
        `${direct.map((r) => `${r.start}-${r.end}`).join(', ')} must stay mapped for ${devices.join(', ')}`,
        [
          firmwareFix(
            'switch off what shares memory with the device: HPE "Shared Memory" (conrep), Dell "Lifecycle", USB legacy support',
          ),
        ],
      ),
    ];
  });
}

function checkTranslatedHost(look: Look): Draft[] {
  const { host } = look;
  if (look.cmdline.some((w) => /^iommu(?:\.passthrough)?=(?:.*,)?(?:pt|1)(?:,.*)?$/.test(w)) || isVirtioIommu(host))
    return [];
  const translated = look.inventory.devices.filter(
    (d) =>
      d.iommu_group !== null &&
      d.driver !== null &&
      /^DMA/.test(
        look.quiet(`IOMMU group ${d.iommu_group}`, () => host.read(host.group(d.iommu_group ?? 0, 'type'))) ?? '',
      ),
  );
  const word = passthroughWord(look);
  if (translated.length === 0 || word === null) return [];
  return [
    finding(
      'iommu-translated-host',
      `/${host.iommuGroups}`,
      `${translated.length} devices on host drivers are in groups of type DMA: slower for fast host NICs and disks, and safer against a broken device`,
      kernelWords({ add: [word] }),
    ),
  ];
}

/**
 * The word that spares the host the translation (Documentation/admin-guide/kernel-parameters.txt); s390 and POWER have
 * none.
 */
function passthroughWord({ host }: Look): string | null {
  const arch = architecture(host);
  if (arch === 's390' || arch === 'power') return null;
  return arch === 'arm' ? 'iommu.passthrough=1' : 'iommu=pt';
}

function checkWords(look: Look): Draft[] {
  const words = look.cmdline;
  const found: Draft[] = [];
  const useless: string[] = words.filter((w) => w === 'amd_iommu=on' || w === 'iommu=on');
  const units = look.names(look.host.classLink('iommu'));
  if (units.some((u) => u.startsWith('ivhd'))) useless.push(...words.filter((w) => /^intel_iommu=/.test(w)));
  for (const word of new Set(useless)) {
    found.push(
      finding(
        'iommu-unknown-option',
        `/${look.host.cmdline}`,
        `${word} is no option of this kernel's IOMMU driver: it is on by itself`,
        kernelWords({ remove: [word] }),
      ),
    );
  }
  const override = words.filter((w) => w.startsWith('pcie_acs_override='));
  if (override.length > 0)
    found.push(
      finding(
        'acs-override',
        `/${look.host.cmdline}`,
        `${override.join(' ')}: give devices of one original group to one guest, or to guests that trust each other`,
        kernelWords({ remove: override }),
      ),
    );
  return found;
}
