/** Why the kernel made a group, in words. The reasons themselves are pci/grouping.ts's. */

import { isErrno, messageOf } from '../errors.ts';
import { type Address, compareAddresses } from '../pci/address.ts';
import { acsBitName, type ConfigSpace, type NoConfig, parseConfig } from '../pci/configSpace.ts';
import { explainGroup, type Join } from '../pci/grouping.ts';
import { isBridge, type PciDevice } from '../pci/inventory.ts';
import { functionsAbove } from '../pci/path.ts';
import { groupMembers } from '../pci/vfio.ts';
import { because, type Cause } from './cause.ts';
import type { Look } from './look.ts';

/** Config space is as large as this, and at most this is read. */
const CONFIG_BYTES = 4096;

/**
 * The config space of a function. Reading it may wake a sleeping device: only a group that must be explained is worth
 * that.
 */
function readConfig(look: Look, address: Address): ConfigSpace | NoConfig {
  try {
    const bytes = look.host.readBytes(look.host.device(address, 'config'), CONFIG_BYTES);
    return bytes === null ? { unmeasured: 'its config file is not there' } : parseConfig(bytes);
  } catch (e) {
    return { unmeasured: messageOf(e), ...(isErrno(e, 'EACCES', 'EPERM') ? { root: true as const } : {}) };
  }
}

/** Why the kernel made the group: only a group of several is asked, for it costs reading config space. */
export function groupCauses(look: Look, d: PciDevice): Cause[] {
  const members = d.iommu_group === null ? [] : groupMembers(look.inventory, d.iommu_group);
  if (members.length < 2) return [];
  const facts = members
    .map((m) => ({
      address: m.address,
      above: functionsAbove(look.host, m.address),
      isVf: m.parent_addr !== null,
      isMaker: !isBridge(m),
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
    case 'maker':
      return because(
        'maker',
        j.at,
        `the driver of ${j.at} makes ${others}, and the IOMMU sees their DMA as its own`,
        'switch that off in the firmware (Intel VMD), so that each stands on its own',
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
      return because(
        'join-unmeasured',
        j.at,
        `${j.at}: ${j.unmeasured?.unmeasured}`,
        j.unmeasured?.root ? 'run this as root' : null,
      );
    case 'unknown':
      return because(
        'join-unknown',
        j.at,
        `${j.members.join(', ')} are joined by nothing that config space shows`,
        'give the whole group to one guest',
      );
  }
}
