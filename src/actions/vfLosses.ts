/** What goes with the VFs of a PF: told by whatever takes them away, before it does. */
import { bindingNow } from '../binding/access.ts';
import { ownerText } from '../binding/books.ts';
import { goingText, representorPorts } from '../binding/guards/network.ts';
import type { Work } from '../binding/perform.ts';
import { recordedVfs, type SriovChange } from '../binding/state.ts';
import type { Host } from '../host/host.ts';
import { Look, Tables } from '../host/look.ts';
import { lostSettings, readVfSettings, type VfSettings } from '../network/vfSettings.ts';
import type { Address } from '../pci/address.ts';
import type { Inventory, PciDevice } from '../pci/inventory.ts';
import { lacksVgpuType, vendorVfio } from '../pci/vendorVfio.ts';
import { type Warning, warning } from '../text/warning.ts';

export type LostVfs = {
  /** Whose the VFs are. */
  bindings: { address: Address; for: string[] }[];
  /** null: not measured. */
  settings: VfSettings[] | null;
  /** Those that are set; null: not measured. */
  vgpu_types: { address: Address; vgpu_type: string }[] | null;
  /** `bridge`: what it is a port of, null for none. */
  representors: { name: string; vf: number; bridge: string | null }[];
};

/**
 * What goes with a PF's VFs, as values and in words. The words are of what comes back with no VF: of bindings, which
 * may, {@link lostBindings} speaks.
 */
export async function lostWithVfs(
  work: Work,
  inventory: Inventory,
  pf: PciDevice,
  { numvfs, vfs }: SriovChange['from'],
): Promise<{ lost: LostVfs; lines: Warning[] }> {
  const bindings = recordedVfs({ numvfs, vfs, autoprobe: null }).flatMap(({ address }) => {
    const holds = bindingNow(work, address)?.holds ?? [];
    return holds.length === 0 ? [] : [{ address, for: holds.map(ownerText) }];
  });
  const reading = await readVfSettings(work, pf, numvfs);
  const types = vgpuTypes(work.host, shownVfs(inventory, pf.address));
  const ports = representorPorts(new Look(new Tables(work.host)), (r) => r.pf === pf.address && !r.external);
  return {
    lost: {
      bindings,
      settings: 'unmeasured' in reading ? null : reading.settings,
      vgpu_types: typeof types === 'string' ? null : types,
      representors: ports.map(({ representor: { name, n }, bridge }) => ({ name, vf: n, bridge })),
    },
    lines: [...ports.map(goingText), ...lostSettings(pf.address, reading), ...lostTypes(pf.address, types)].map(
      (text) => warning('lost-with-vfs', text, pf.address),
    ),
  };
}

/** The VFs of a PF that the host shows. */
export const shownVfs = (inventory: Inventory, pf: Address): PciDevice[] =>
  inventory.devices.filter((d) => d.parent_addr === pf);

/** Whose VFs these are, for who takes them away for good. */
export const lostBindings = (pf: Address, { bindings }: LostVfs): Warning[] =>
  bindings.length === 0
    ? []
    : [
        warning(
          'lost-with-vfs',
          `${pf}: these bindings go with its VFs: ${bindings.map((b) => `${b.address} (${b.for.join(', ')})`).join(', ')}`,
          pf,
        ),
      ];

/** The vGPU types that are set; why they are not known, where that is so. */
function vgpuTypes(host: Host, vfs: readonly PciDevice[]): NonNullable<LostVfs['vgpu_types']> | string {
  try {
    return vfs.flatMap((vf) => {
      const own = vendorVfio(host, vf);
      return own?.vgpu == null || lacksVgpuType(own) ? [] : [{ address: vf.address, vgpu_type: own.vgpu.id }];
    });
  } catch (e) {
    return (e as Error).message;
  }
}

function lostTypes(pf: Address, types: NonNullable<LostVfs['vgpu_types']> | string): string[] {
  if (typeof types === 'string')
    return [`${pf}: which vGPU types its VFs have is not known (${types}); they go with them and are not put back`];
  if (types.length === 0) return [];
  const named = types.map((t) => `${t.vgpu_type} of ${t.address}`).join(', ');
  return [`${pf}: the vGPU types of its VFs go with them and are not put back: ${named}`];
}
