/**
 * Elements as hostdev writes them into a domain: the way libvirt's own formatter does, or on one line where the domain
 * is on one line.
 */
import { HostdevError } from '../../errors.ts';
import { type Address, parseAddress } from '../../pci/address.ts';
import { safe } from '../../text/safe.ts';

/** An element to be written. Attributes that are undefined are left out; nothing of ours has text in it. */
export type XmlElement = {
  name: string;
  attributes?: Readonly<Record<string, string | undefined>>;
  children?: readonly XmlElement[];
};

/** How the lines around look: their end, what the element itself is indented by, and what each level below adds. */
export type Layout = { eol: string; indent: string; unit: string };

/** Two spaces a level, as `virsh dumpxml` prints. */
export const LIBVIRT_LAYOUT: Layout = { eol: '\n', indent: '', unit: '  ' };

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', "'": '&apos;', '"': '&quot;' };

/** What XML 1.0 has no way to hold, not even as a reference. */
const UNWRITABLE = /[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/u;

/**
 * A value between quotes. All but printable ASCII becomes a reference: a parser would turn a tab or line end into a
 * space, and a document may have declared US-ASCII.
 */
function quoted(value: string): string {
  if (UNWRITABLE.test(value))
    throw new HostdevError('HOSTDEV_USAGE', `'${safe(value)}' has a character that XML cannot hold`);
  const text = value.replace(/[&<>'"]|[^ -~]/gu, (c) => ENTITIES[c] ?? `&#x${c.codePointAt(0)?.toString(16)};`);
  return `'${text}'`;
}

const startTag = ({ name, attributes = {} }: XmlElement): string =>
  Object.entries(attributes).reduce((t, [k, v]) => (v === undefined ? t : `${t} ${k}=${quoted(v)}`), `<${name}`);

/**
 * The text of an element, without indentation before its first line and without a line end behind its last. `layout`
 * null writes all of it on one line. Raises HOSTDEV_USAGE for a value that XML cannot hold.
 */
export function formatXml(element: XmlElement, layout: Layout | null): string {
  const { name, children = [] } = element;
  if (children.length === 0) return `${startTag(element)}/>`;
  const below = layout && { ...layout, indent: layout.indent + layout.unit };
  const lead = below ? below.eol + below.indent : '';
  const inner = children.map((c) => lead + formatXml(c, below)).join('');
  return `${startTag(element)}>${inner}${layout ? layout.eol + layout.indent : ''}</${name}>`;
}

/**
 * `<address domain='0x0000' bus='0x25' slot='0x00' function='0x4'/>` of a host's device; with `type='pci'` where
 * libvirt asks for it.
 */
export function addressElement(address: Address, type?: 'pci'): XmlElement {
  const p = parseAddress(address);
  if (!p) throw new HostdevError('HOSTDEV_INTERNAL', `${safe(address)} is no PCI address`);
  const hex = (n: number, digits: number): string => `0x${n.toString(16).padStart(digits, '0')}`;
  return {
    name: 'address',
    attributes: {
      type,
      domain: hex(p.domain, 4),
      bus: hex(p.bus, 2),
      slot: hex(p.slot, 2),
      function: hex(p.func, 1),
    },
  };
}
