/** `<virtualport>` of an interface: what the schema and virNetDevVPortProfileParse have, by its type. */
import type { Element } from '@xmldom/xmldom';
import { child } from '../xml/dom.ts';
import { type Grammar, grammarFaults } from './grammar.ts';
import { UUID } from './shapes.ts';
import { ANY, DECIMAL_8, number, OCTAL_8 } from './values.ts';

/** Kinds of interface that may have one. */
export const WITH_PORT: readonly string[] = ['bridge', 'direct', 'hostdev', 'network'];

const PARAMETERS: Record<string, readonly string[]> = {
  '802.1Qbg': ['managerid', 'typeid', 'typeidversion', 'instanceid'],
  '802.1Qbh': ['profileid'],
  openvswitch: ['profileid', 'interfaceid'],
  midonet: ['interfaceid'],
};
/** virStrToLong_ui, which takes a minus before 0. */
const SIGN = '(?:\\+|-(?=0+$))?';
const VPORT_8 = number('[0-9a-fA-F]{1,2}', OCTAL_8, DECIMAL_8, SIGN);
const DECIMAL_24 =
  '[1-9]\\d{0,6}|1[0-5]\\d{6}|16[0-6]\\d{5}|167[0-6]\\d{4}|1677[0-6]\\d{3}|16777[01]\\d{2}|1677720\\d|1677721[0-5]';
const PARAMETER: Record<string, RegExp> = {
  managerid: VPORT_8,
  typeid: number('[0-9a-fA-F]{1,6}', '0*[0-7]{0,7}', DECIMAL_24, SIGN),
  typeidversion: VPORT_8,
  instanceid: UUID,
  profileid: /^.{0,39}$/s,
  interfaceid: UUID,
};

/** What must be there where the interface is no network's: a network may add it. */
const NEEDED: Record<string, readonly string[]> = {
  '802.1Qbg': ['managerid', 'typeid', 'typeidversion'],
  '802.1Qbh': ['profileid'],
};

function grammarOf(type: string | null): Grammar | null {
  if (type === null) return { children: { parameters: { attributes: PARAMETER } } };
  const names = Object.hasOwn(PARAMETERS, type) ? PARAMETERS[type] : undefined;
  if (!names) return null;
  const attributes = Object.fromEntries(names.map((n) => [n, PARAMETER[n] ?? ANY]));
  const required = type === 'midonet' ? names : [];
  return {
    attributes: { type: ANY },
    children: { parameters: { attributes, required } },
    needs: type === 'midonet' ? ['parameters'] : [],
  };
}

/** Where the `<virtualport>` of an interface of a kind in {@link WITH_PORT}, if it has one, is none. */
export function virtualPortFaults(element: Element): string[] {
  const port = child(element, 'virtualport');
  if (!port) return [];
  const type = port.getAttribute('type');
  const ofNetwork = element.getAttribute('type') === 'network';
  const grammar = type === null && !ofNetwork ? null : grammarOf(type);
  if (grammar === null) return ['its <virtualport> has no type that there is'];
  const parameters = child(port, 'parameters');
  const needed = ofNetwork ? [] : (NEEDED[type ?? ''] ?? []);
  const missing = needed.filter((n) => !parameters?.getAttribute(n));
  return [...grammarFaults(port, grammar), ...(missing.length > 0 ? [`its ${type} has no ${missing.join(', ')}`] : [])];
}
