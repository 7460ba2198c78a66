/** The shape of `<iommu>` by version: what libvirt's schema and parser take. */

import { safe } from '../../text/safe.ts';
import type { Part } from '../domainFacts.ts';
import { grammarFaults } from '../rules/grammar.ts';
import { below, type Fault, type Shape, shapeFaults, sinceLibvirt, type Target } from '../rules/rules.ts';
import { ALIAS, guestAddressGrammar, POSITIVE } from '../rules/shapes.ts';
import { ANY, ON_OFF, UINT8, UINT32 } from '../rules/values.ts';
import type { Version } from '../version.ts';
import { child } from '../xml/dom.ts';
import { ATTRIBUTES, type AttributeRow, DEVICE_INFO_FROM, GRANULE } from './models.ts';
import { iommusOf, known } from './parts.ts';

const VALUE: Record<AttributeRow['value'], RegExp> = {
  switch: ON_OFF,
  uint8: UINT8,
  uint: UINT32,
  int: /^\s*[+-]?\d{1,9}$/,
};

/** The driver element by libvirt's schema of a version. */
function driverShape(libvirt: Version | null): Shape {
  const attributes: Record<string, RegExp> = {};
  for (const [name, row] of Object.entries(ATTRIBUTES)) {
    if (!below(libvirt, row.libvirt)) attributes[name] = VALUE[row.value];
  }
  return { attributes, children: below(libvirt, GRANULE.libvirt) ? [] : ['granule'] };
}

/** What the schema and the parser of that libvirt refuse. */
export function schemaFaults({ domain, versions }: Target): Fault[] {
  return iommusOf(domain).flatMap(({ part }) => {
    const e = part.element;
    const driver = child(e, 'driver');
    const address = child(e, 'address');
    const acpi = child(e, 'acpi');
    const alias = child(e, 'alias');
    const granule = driver && child(driver, 'granule');
    const info = below(versions.libvirt, DEVICE_INFO_FROM) ? [] : ['acpi', 'address', 'alias'];
    const causes = [
      ...shapeFaults(e, { attributes: { model: ANY }, children: ['driver', ...info] }),
      ...(driver ? shapeFaults(driver, driverShape(versions.libvirt)) : []),
      ...(granule && !below(versions.libvirt, GRANULE.libvirt) ? granuleFaults(granule) : []),
      ...(address && info.length > 0 ? addressFaults(address) : []),
      ...(acpi && info.length > 0 ? shapeFaults(acpi, ACPI) : []),
      ...(alias && info.length > 0 ? grammarFaults(alias, ALIAS) : []),
    ];
    return causes.map((cause): Fault => {
      const from = knownFrom(cause);
      return from === null || !below(versions.libvirt, from)
        ? { part, cause }
        : { part, cause: `${cause} before ${sinceLibvirt(from)}`, since: sinceLibvirt(from) };
    });
  });
}

const ACPI: Shape = { attributes: { index: POSITIVE }, children: [] };

/** The version from which there is what a fault says is not there; null when there never is. */
function knownFrom(cause: string): Version | null {
  const [, what, name = ''] = /^<\w+> has no (attribute '|element <)(\w+)/.exec(cause) ?? [];
  if (what === undefined) return null;
  if (name === 'granule') return GRANULE.libvirt;
  if (['acpi', 'address', 'alias'].includes(name)) return DEVICE_INFO_FROM;
  return (Object.hasOwn(ATTRIBUTES, name) ? ATTRIBUTES[name]?.libvirt : null) ?? null;
}

function granuleFaults(e: Parameters<typeof shapeFaults>[0]): string[] {
  const mode = e.getAttribute('mode');
  const size = e.getAttribute('size');
  if ((mode === null) === (size === null)) return ["<granule> has either mode='host' or a size"];
  if (mode !== null && e.getAttribute('unit') !== null) return ["<granule mode='host'> has no unit"];
  return shapeFaults(e, { attributes: { mode: /^host$/, size: /^\d{1,10}$/, unit: /^[A-Za-z]{1,5}$/ }, children: [] });
}

function addressFaults(e: Parameters<typeof shapeFaults>[0]): string[] {
  const type = e.getAttribute('type');
  const grammar = guestAddressGrammar(type);
  return grammar ? grammarFaults(e, grammar) : [`'${safe(type ?? '')}' is no type of an <address>`];
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
    const granule =
      child(i.part.element, 'driver') && child(child(i.part.element, 'driver') as Part['element'], 'granule');
    if (granule && i.model !== 'virtio' && !below(versions.libvirt, GRANULE.libvirt)) names.push('granule');
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
