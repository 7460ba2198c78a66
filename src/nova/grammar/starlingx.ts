/**
 * The PCI aliases that StarlingX defines by itself (its guide "Configure a Flavor to Use a Generic PCI Device"):
 * `qat-vf` for any QuickAssist VF, with one name a chip below it. Off unless asked for: they take names that an
 * operator may use.
 */
import type { Aliases } from './alias.ts';
import { type Note, note } from './novaError.ts';

/** Vendor and product ids as in the kernel's drivers/crypto/intel/qat (qat_dh895xccvf, qat_c62xvf). */
const QAT = [
  { chip: 'dh895xcc', pf: '0435', vf: '0443' },
  { chip: 'c62x', pf: '37c8', vf: '37c9' },
] as const;
const INTEL = '8086';

/**
 * Configuration values to put behind the operator's own; a name that the operator defines is left to the operator. With
 * pci_in_placement an alias can stand for one chip only, so `qat-vf` is left out.
 */
export function starlingxAliases(own: Aliases, pciInPlacement: boolean): { values: object[]; notes: Note[] } {
  const notes: Note[] = [];
  const values = [...(pciInPlacement ? [] : ['qat-vf']), ...QAT.map((q) => `qat-${q.chip}-vf`)].flatMap((name) => {
    if (own.has(name)) {
      notes.push(note(`the default alias ${name} is the configuration's own`, 'name'));
      return [];
    }
    const chips = QAT.filter((q) => name === 'qat-vf' || name === `qat-${q.chip}-vf`);
    return chips.map((q) => ({ name, vendor_id: INTEL, product_id: q.vf, device_type: 'type-VF' }));
  });
  if (pciInPlacement)
    notes.push(note('the default alias qat-vf stands for several chips: with pci_in_placement it is left out', 'name'));
  return { values, notes };
}

type Card = { address: string; vendor_id: string | null; product_id: string | null; parent_addr: string | null };

/**
 * What StarlingX's guide, and the kernel's vfio-pci, warn about on this host: several cards behind one default alias;
 * QAT PFs, which it does not support; and that vfio-pci refuses these devices unless its denylist is off.
 */
export function starlingxNotes(devices: readonly Card[]): Note[] {
  const notes: Note[] = [];
  const intel = devices.filter((d) => d.vendor_id === INTEL);
  for (const { chip, pf, vf } of QAT) {
    const pfs = intel.filter((d) => d.product_id === pf);
    const vfs = intel.filter((d) => d.product_id === vf);
    const cards = new Set(vfs.map((d) => d.parent_addr ?? d.address));
    if (cards.size > 1) {
      notes.push(
        note(`${cards.size} cards are behind the default alias qat-${chip}-vf: give each an alias of its own`, 'name'),
      );
    }
    if (pfs.length > 0) {
      notes.push(
        note(
          `the QAT PF ${pfs.map((d) => d.address).join(', ')} cannot be passed through (qat-pf): only its VFs`,
          'name',
        ),
      );
    }
    if (pfs.length + vfs.length > 0) {
      notes.push(
        note(`vfio-pci has QAT ${chip} on its denylist: without disable_denylist=1 it refuses these devices`, 'name'),
      );
    }
  }
  return notes;
}
