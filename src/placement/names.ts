/**
 * Names of resource classes and traits as Nova makes them of what operators write
 * (nova/compute/pci_placement_translator.py).
 */
import { isStandardClass, isStandardTrait } from './standardTraits.ts';

/**
 * What becomes of blanks around the items of a traits list. `nova` keeps them, so that "blue, big" gives CUSTOM_BLUE
 * and CUSTOM__BIG, which no alias that says "big" finds; `trim` gives CUSTOM_BIG. Where Nova computes report the same
 * devices, take `nova`.
 */
export type TraitBlanks = 'trim' | 'nova';

const CUSTOM = 'CUSTOM_';

/** As os_traits.normalize_name: every run of what is no letter or digit of ASCII is one "_". */
const custom = (name: string): string => CUSTOM + name.toUpperCase().replace(/[^0-9A-Z]+/g, '_');

/**
 * A name that begins with CUSTOM_ is kept, as in Nova; what Placement would refuse in it (400) is replaced, which Nova
 * leaves out.
 */
const kept = (name: string): string => name.replace(/[^0-9A-Z_]+/g, '_');

/** The resource class of a device or an alias: its tag, or one made of the ids. */
export function resourceClass(tag: string | null, vendorId: string | null, productId: string | null): string {
  if (!tag) return `${CUSTOM}PCI_${vendorId ?? 'NONE'}_${productId ?? 'NONE'}`.toUpperCase();
  const name = tag.toUpperCase();
  if (isStandardClass(name)) return name;
  return name.startsWith(CUSTOM) ? kept(name) : custom(tag);
}

/** The traits of a comma list; the names of os-traits count in capitals only. */
export function traitNames(list: string | null, blanks: TraitBlanks): string[] {
  if (!list) return [];
  const names = list.split(',').map((item) => {
    const name = blanks === 'trim' ? item.trim() : item;
    if (isStandardTrait(name)) return name;
    const upper = name.toUpperCase();
    return upper.startsWith(CUSTOM) ? kept(upper) : custom(name);
  });
  return [...new Set(names)];
}
