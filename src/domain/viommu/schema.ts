/** The grammar of `<iommu>`, made from the table of its attributes, and what its model does not take. */

import { safe } from '../../text/safe.ts';
import type { Part } from '../domainFacts.ts';
import { type Grammar, grammarFaults } from '../rules/grammar.ts';
import { faults, faultsOf } from '../rules/ours.ts';
import type { Fault, Target } from '../rules/rules.ts';
import { ACPI_INDEX, ALIAS, guestAddressGrammar } from '../rules/shapes.ts';
import { ANY, ON_OFF, UINT8, UINT32, type Value } from '../rules/values.ts';
import { below, sinceLibvirt } from '../version.ts';
import { child } from '../xml/dom.ts';
import { ATTRIBUTES, type AttributeRow, DEVICE_INFO_FROM, GRANULE } from './models.ts';
import { granuleOf, iommusOf, known } from './parts.ts';

const VALUE: Record<AttributeRow['value'], Value> = {
  switch: ON_OFF,
  uint8: UINT8,
  uint: UINT32,
  int: /^\s*[+-]?\d{1,9}$/,
};

/** Its address is judged by its type. */
const IOMMU: Grammar = {
  attributes: { model: ANY },
  children: {
    driver: {
      attributes: Object.fromEntries(
        Object.entries(ATTRIBUTES).map(([name, row]) => [name, { value: VALUE[row.value], since: row.libvirt }]),
      ),
      children: {
        granule: {
          since: GRANULE.libvirt,
          attributes: { mode: /^host$/, size: /^\d{1,10}$/, unit: /^[A-Za-z]{1,5}$/ },
        },
      },
    },
    acpi: { ...ACPI_INDEX, since: DEVICE_INFO_FROM },
    alias: { ...ALIAS, since: DEVICE_INFO_FROM },
  },
};

/** What the schema and the parser of that libvirt refuse. */
export function schemaFaults({ domain, versions: { libvirt } }: Target): Fault[] {
  return iommusOf(domain).flatMap(({ part }) => {
    const e = child(part.element, 'address');
    const isEarly = below(libvirt, DEVICE_INFO_FROM);
    const type = e?.getAttribute('type') ?? null;
    const address = isEarly ? { since: DEVICE_INFO_FROM } : guestAddressGrammar(type);
    const grammar: Grammar = { ...IOMMU, children: { ...IOMMU.children, address: address ?? null } };
    return [
      ...faultsOf(part, grammarFaults(part.element, grammar, libvirt)),
      ...faults(part, e && address === undefined ? [`'${safe(type ?? '')}' is no type of an <address>`] : []),
      ...faults(part, below(libvirt, GRANULE.libvirt) ? [] : granuleFaults(part)),
    ];
  });
}

function granuleFaults(part: Part): string[] {
  const granule = granuleOf(part);
  if (!granule) return [];
  const has = (name: string): boolean => granule.hasAttribute(name);
  if (has('mode') === has('size')) return ["<granule> has either mode='host' or a size"];
  return has('mode') && has('unit') ? ["<granule mode='host'> has no unit"] : [];
}

/** Attributes of the driver that its model does not take. */
export function attributeFaults({ domain, versions }: Target): Fault[] {
  return known(domain).flatMap((i) => {
    const names = Object.keys(i.driver).filter((name) => {
      const row = Object.hasOwn(ATTRIBUTES, name) ? ATTRIBUTES[name] : undefined;
      if (row === undefined || below(versions.libvirt, row.libvirt)) return false;
      // libvirt keeps 0 for "not given".
      if (name === 'aw_bits' && Number(i.driver[name]) === 0) return false;
      const from = row.models[i.model];
      return from === undefined || below(versions.libvirt, from);
    });
    if (granuleOf(i.part) && i.model !== 'virtio' && !below(versions.libvirt, GRANULE.libvirt)) names.push('granule');
    return names.map((name): Fault => {
      const from = ATTRIBUTES[name]?.models[i.model];
      const fix = from ? `leave ${name} out, or use ${sinceLibvirt(from)}` : `leave ${name} out`;
      return {
        part: i.part,
        cause: `model ${i.model} does not take ${name}${from ? ` before ${sinceLibvirt(from)}` : ''}`,
        ...(from ? { since: sinceLibvirt(from) } : {}),
        fix,
      };
    });
  });
}
