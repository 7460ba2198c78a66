/**
 * `doctor --cloud-init`: this host as what new machines of its kind are given. Its wishes without the numbers of its
 * own cards, and the words that its kernel line has, or should have, for the IOMMU.
 */
import { tomlOf } from '../boot/kept.ts';
import { newMachines } from '../doctor/cloudInit.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { MARKS } from '../pci/identity.ts';
import { hostWishes } from './wishes.ts';

/** Words about the IOMMU that a machine of the same kind needs too. */
const WORDS = /^(?:intel_iommu|amd_iommu|iommu|iommu\.passthrough|pcie_acs_override|vfio_iommu_type1\.\w+)=\S+$/;

/** The text. Raises HOSTDEV_WISH_ABSENT where nothing is wished here, and what reading the configuration raises. */
export async function cloudInit(host: Host, juju: boolean): Promise<{ user_data: string; wishes: number }> {
  const { seen } = await hostWishes(host);
  const wishes = seen.map(({ match: { wish } }) => wish);
  if (wishes.length === 0)
    throw new HostdevError('HOSTDEV_WISH_ABSENT', 'Nothing is wished on this host that new machines could be given', {
      hint: "Make the wishes here first: 'hostdev wish add', 'hostdev import rc.local --write'.",
    });
  const text = wishes
    .map((w) => tomlOf({ ...w, identity: { ...w.identity, ...Object.fromEntries(MARKS.map((m) => [m, null])) } }))
    .join('\n');
  const words = (host.read(host.cmdline, MAX_CMDLINE) ?? '').split(/\s+/).filter((w) => WORDS.test(w));
  const intel = /^vendor_id\s*:\s*GenuineIntel$/m.test(host.read(host.cpuinfo, MAX_CPUINFO) ?? '');
  if (intel && !words.some((w) => w.startsWith('intel_iommu='))) words.unshift('intel_iommu=on');
  if (!words.some((w) => w.startsWith('iommu='))) words.push('iommu=pt');
  return { user_data: newMachines({ wishes: text, words: [...new Set(words)] }, juju), wishes: wishes.length };
}

const MAX_CMDLINE = 64 * 1024;
const MAX_CPUINFO = 4 * 1024 * 1024;
