/** Why a device's group is as it is, and what keeps the device from a guest: facts joined into causes, each with what to change. */
import { denylistAdvice, denylisted } from '../binding/denylist.ts';
import { readModuleLists, variantDriver } from '../binding/driverChoice.ts';
import { readUsage } from '../binding/usage.ts';
import { interruptRemapping, unsafeInterruptsAllowed } from '../host/interrupts.ts';
import { iommuState } from '../host/iommu.ts';
import { type Address, compareAddresses } from '../pci/address.ts';
import { acsBitName, type ConfigSpace, type NoConfig, parseConfig } from '../pci/configSpace.ts';
import { explainGroup, type Join } from '../pci/grouping.ts';
import { isBridge, type PciDevice } from '../pci/inventory.ts';
import { bridgesAbove } from '../pci/path.ts';
import { groupBlockers, groupMembers, isVfioDriver, type ReservedRegion, reservedRegions } from '../pci/vfio.ts';
import { isVirtioIommu } from './iommu.ts';
import type { Look } from './look.ts';
import { CAUSES, type CauseId } from './table.ts';

export type Cause = {
  id: CauseId;
  /** True when it keeps the device from a guest as things are. */
  blocks: boolean;
  /** The device, bridge or file that it lies in. */
  object: string;
  cause: string;
  /** What to change; null when nothing has to be. */
  change: string | null;
};

/** What another function of the group is to the host, and what the host would lose with it. */
export type Peer = {
  address: Address;
  class: string | null;
  driver: string | null;
  blocks: boolean;
  netdevs: string[];
  disks: string[];
  displays: string[];
};

/** What a reset of the device would reach. */
export type Reset = { methods: string[] | null; scope: Address[] };

/** A cause with the table's verdict. */
const because = (id: CauseId, object: string, cause: string, change: string | null): Cause => ({
  id,
  blocks: CAUSES[id].blocks,
  object,
  cause,
  change,
});

/** Config space is as large as this, and at most this is read. */
const CONFIG_BYTES = 4096;

/** The config space of a function. Reading it may wake a sleeping device: only a group that must be explained is worth that. */
function readConfig(look: Look, address: Address): ConfigSpace | NoConfig {
  try {
    const bytes = look.host.readBytes(look.host.device(address, 'config'), CONFIG_BYTES);
    return bytes === null ? { unmeasured: 'its config file is not there' } : parseConfig(bytes);
  } catch (e) {
    return { unmeasured: (e as Error).message };
  }
}

/** The host as a whole: IOMMU, interrupts. */
export function hostCauses(look: Look, d: PciDevice): Cause[] {
  const { host } = look;
  const state = iommuState(host);
  if (!state.on)
    return [
      because(
        'iommu-off',
        'IOMMU',
        state.reason ?? 'the kernel has no IOMMU groups',
        "'hostdev doctor' prints the line to change",
      ),
    ];
  const causes: Cause[] = [];
  if (d.iommu_group === null) {
    const later = isVirtioIommu(look);
    causes.push(
      later
        ? because('group-at-probe', d.address, 'no driver is bound to it yet', null)
        : because(
            'no-group',
            d.address,
            `none of the units ${state.units.join(', ') || '(none shown)'} translates for it`,
            'choose another slot or device; the firmware leaves this one out',
          ),
    );
  }
  const remapping = interruptRemapping(host);
  const unsafe = unsafeInterruptsAllowed(host);
  if (remapping.state === null) look.missed('interrupt remapping', remapping.why);
  if (remapping.state === 'off')
    causes.push(
      unsafe.length > 0
        ? because(
            'unsafe-interrupts',
            'interrupt remapping',
            `${remapping.why}; ${unsafe.join(', ')} allow_unsafe_interrupts=Y`,
            'give devices to trusted guests only',
          )
        : because(
            'interrupt-remapping',
            'interrupt remapping',
            remapping.why,
            "switch it on in the firmware or on the kernel command line: 'hostdev doctor' prints the line",
          ),
    );
  if (look.cmdline.some((w) => w.startsWith('pcie_acs_override=')))
    causes.push(
      because(
        'acs-override',
        `/${host.cmdline}`,
        'groups may be smaller than what hardware keeps apart',
        'take pcie_acs_override out, or trust the guests on both sides',
      ),
    );
  return causes;
}

/** The device itself. */
export function deviceCauses(look: Look, d: PciDevice): Cause[] {
  const { host } = look;
  const causes: Cause[] = [];
  if (isBridge(d))
    causes.push(because('not-endpoint', d.address, `class ${d.class} is no endpoint`, 'name a device behind it'));
  if (d.sriov_numvfs !== null && d.sriov_numvfs > 0)
    causes.push(
      because(
        'vfs',
        d.address,
        `it has ${d.sriov_numvfs} VFs`,
        `pass the VFs through, or remove them first: echo 0 > ${host.absolute(host.device(d.address, 'sriov_numvfs'))}`,
      ),
    );
  const family = denylisted(d.vendor_id ?? '', d.product_id ?? '')?.family;
  if (family !== undefined && !denylistOff(look) && vfioDriver(look, d) === 'vfio-pci')
    causes.push(because('denylist', d.address, family, denylistAdvice()));
  const vfio = isVfioDriver(host, d.address, d.driver);
  const usage = look.quiet(d.address, () => readUsage(host, d, vfio));
  if (usage === null) return causes;
  for (const u of usage.unmeasured) look.missed(d.address, u);
  for (const u of [...usage.disks, ...usage.network, ...usage.display])
    causes.push(
      because(
        'host-use',
        d.address,
        u,
        'let the host do without it first; bind refuses until then (or --allow names the guard)',
      ),
    );
  for (const h of usage.holders)
    causes.push(
      because(
        'held',
        d.address,
        `process ${h.pid} (${h.command}) has ${h.path} open`,
        vfio ? 'it belongs to a running guest: stop that first' : 'end that process',
      ),
    );
  return causes;
}

const denylistOff = (look: Look): boolean =>
  look
    .quiet('disable_denylist', () => look.host.read(look.host.module('vfio_pci', 'parameters/disable_denylist')))
    ?.trim() === 'Y';

const vfioDriver = (look: Look, d: PciDevice): string | null =>
  look.quiet('variant driver', () => variantDriver(look.host, d, readModuleLists(look.host)).driver);

/** The rest of the group: who blocks, and what the host would lose. */
export function peers(look: Look, d: PciDevice): { peers: Peer[]; causes: Cause[] } {
  const { host } = look;
  const others =
    d.iommu_group === null ? [] : groupMembers(look.inventory, d.iommu_group).filter((p) => p.address !== d.address);
  const blockers = groupBlockers(
    others,
    (p) => p.driver,
    (p, driver) => isVfioDriver(host, p.address, driver),
  );
  const list = others.map((p) =>
    describe(
      look,
      p,
      blockers.some((b) => b.address === p.address),
    ),
  );
  const causes: Cause[] = [];
  for (const b of blockers) {
    const p = list.find((o) => o.address === b.address);
    const device = others.find((o) => o.address === b.address);
    const loses = p === undefined ? '' : losses(p);
    const change =
      device !== undefined && isBridge(device)
        ? `take its driver away, which serves ${device.class?.startsWith('0604') ? 'hot plug behind it only' : 'the host something'}: echo ${b.address} > ${host.absolute(host.driver(b.driver, 'unbind'))}`
        : `give it to the same guest, or take it from the host: hostdev bind ${b.address}${loses === '' ? '' : ` (the host loses ${loses})`}`;
    causes.push(because('peer-driver', b.address, `${b.address} ${b.reason}`, change));
  }
  for (const p of others.filter((o) => blockers.some((b) => b.address === o.address) && !isBridge(o))) {
    const usage = look.quiet(p.address, () => readUsage(host, p, false));
    for (const u of usage === null ? [] : [...usage.disks, ...usage.network, ...usage.display])
      causes.push(
        because('peer-host-use', p.address, u, 'let the host do without it, or put the device into another slot'),
      );
  }
  return { peers: list, causes };
}

function describe(look: Look, p: PciDevice, blocks: boolean): Peer {
  const below = (kind: 'net' | 'block' | 'drm'): string[] =>
    isBridge(p)
      ? []
      : look
          .names(look.host.classLink(kind))
          .filter((n) => look.quiet(n, () => look.host.link(look.host.classLink(kind, n)))?.includes(`/${p.address}/`))
          // The hidden path of an NVMe namespace: the disk that people know is its head.
          .map((n) => n.replace(/^(nvme\d+)c\d+(n\d+)/, '$1$2'));
  return {
    address: p.address,
    class: p.class,
    driver: p.driver,
    blocks,
    netdevs: below('net'),
    disks: below('block'),
    displays: below('drm'),
  };
}

/** What the host would lose with a device, for people. */
export const losses = (p: Peer): string => [...p.netdevs, ...p.disks, ...p.displays].join(', ');

/** Regions that the firmware keeps: `direct` forbids every other use of the group, `direct-relaxable`, `msi` and `reserved` do not. */
export function reserved(look: Look, d: PciDevice): { regions: ReservedRegion[]; causes: Cause[] } {
  if (d.iommu_group === null) return { regions: [], causes: [] };
  const regions =
    look.quiet(`IOMMU group ${d.iommu_group}`, () => reservedRegions(look.host, d.iommu_group ?? 0)) ?? [];
  const causes = regions
    .filter((r) => r.type === 'direct')
    .map((r) =>
      because(
        'reserved-direct',
        `IOMMU group ${d.iommu_group}`,
        `${r.start}-${r.end} must stay mapped one to one`,
        'switch off in the firmware what shares memory with the device (HPE "Shared Memory", USB legacy support), or take another slot',
      ),
    );
  return { regions, causes };
}

/** Why the kernel made the group: only a group of several is asked, for it costs reading config space. */
export function groupCauses(look: Look, d: PciDevice): Cause[] {
  const members = d.iommu_group === null ? [] : groupMembers(look.inventory, d.iommu_group);
  if (members.length < 2) return [];
  const facts = members
    .map((m) => ({
      address: m.address,
      above: bridgesAbove(look.host, m.address),
      isVf: m.parent_addr !== null,
      config: readConfig(look, m.address),
    }))
    .sort((a, b) => compareAddresses(a.address, b.address));
  for (const { address, config } of facts) {
    if ('unmeasured' in config) look.missed(`/${look.host.device(address, 'config')}`, config.unmeasured);
    else if (config.fault !== null) look.missed(`/${look.host.device(address, 'config')}`, config.fault);
  }
  return explainGroup(facts).map((j) => joinCause(j));
}

const PORTS: Readonly<Record<string, string>> = {
  'root-port': 'root port',
  'downstream-port': 'downstream port of a switch',
  'upstream-port': 'upstream port of a switch',
};

const APART = 'give the whole group to one guest, or put the card into a slot below another port';

function joinCause(j: Join): Cause {
  const others = j.members.filter((a) => a !== j.at).join(', ');
  const lacks =
    j.missing === null || j.missing.length === 0
      ? 'has no ACS capability'
      : `has ACS with ${j.missing.map((b) => `${acsBitName(b)} (${b})`).join(', ')} switched off`;
  switch (j.kind) {
    case 'port-acs':
      return because(
        'port-acs',
        j.at,
        `the ${PORTS[j.pcie ?? ''] ?? 'port'} ${j.at} ${lacks}; below it: ${others}`,
        `${APART}; firmware settings such as "ACS" or "PCIe ARI/ACS" may switch it on`,
      );
    case 'conventional-bridge':
      return because(
        'conventional-bridge',
        j.at,
        `${j.at} is a ${j.pcie === null ? 'conventional PCI bridge' : j.pcie === 'pcie-to-pci-bridge' ? 'PCIe-to-PCI bridge' : 'PCI-to-PCIe bridge'}; behind it: ${others}`,
        'give everything behind it to one guest, or use a PCI Express card instead',
      );
    case 'functions-acs':
      return because(
        'functions-acs',
        j.at,
        `${j.members.join(', ')} are functions of one slot, ${j.missing?.length ? `with ${j.missing.join(', ')} of ACS switched off` : 'without ACS'}`,
        'give all functions of the slot to one guest',
      );
    case 'unmeasured':
      return because('join-unmeasured', j.at, `${j.at}: ${j.unmeasured}`, 'run this as root');
    case 'unknown':
      return because(
        'join-unknown',
        j.at,
        `${j.members.join(', ')} are joined by nothing that config space shows`,
        'give the whole group to one guest',
      );
  }
}

/** Methods that reach the function alone (drivers/pci/pci.c pci_reset_fn_methods). */
const LOCAL = new Set(['device_specific', 'acpi', 'flr', 'af_flr', 'pm']);

/** How the device is reset, and whom else that would hit. */
export function resetScope(look: Look, d: PciDevice): { reset: Reset; causes: Cause[] } {
  const { host } = look;
  const text = look.quiet(d.address, () => host.read(host.device(d.address, 'reset_method')));
  // Kernels before 5.15 show only whether there is a method at all.
  const old =
    text === null && look.quiet(d.address, () => host.list(host.device(d.address)))?.includes('reset') === true;
  if (old) look.missed(`/${host.device(d.address, 'reset_method')}`, 'not there: a kernel before 5.15');
  const methods = old
    ? null
    : (text ?? '')
        .split(/\s+/)
        .filter((m) => /^[a-z_]{1,32}$/.test(m))
        .slice(0, 16);
  if (methods === null || isBridge(d) || methods.some((m) => LOCAL.has(m)))
    return { reset: { methods, scope: [] }, causes: [] };
  // A root bus has no bridge that could reset it.
  const above = bridgesAbove(host, d.address)[0];
  const scope = look.inventory.devices
    .filter((o) => above !== undefined && o.address !== d.address && bridgesAbove(host, o.address).includes(above))
    .map((o) => o.address);
  const hit = scope.length === 0 ? 'nothing else is on its bus' : `that hits ${scope.join(', ')} too`;
  const causes =
    methods.length > 0
      ? scope.length === 0
        ? []
        : [
            because(
              'reset-bus',
              d.address,
              `its only method is ${methods.join(' ')}; ${hit}`,
              'give all of them to the same guest',
            ),
          ]
      : above === undefined
        ? [
            because(
              'reset-none',
              d.address,
              'reset_method is empty, and there is no bridge above whose bus could be reset',
              'reboot the host between guests that do not trust each other; for AMD GPUs see vendor-reset',
            ),
          ]
        : [
            because(
              'reset-none',
              d.address,
              `reset_method is empty; a guest can only reset the bus below ${above}: ${hit}`,
              scope.length === 0 ? 'nothing, or see vendor-reset for AMD GPUs' : 'give all of them to the same guest',
            ),
          ];
  return { reset: { methods, scope }, causes };
}
