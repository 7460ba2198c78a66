/**
 * Domains as people and programs write them: those in test/data/domains/edit, and as many more from a generator of
 * their habits. And canonical XML, to compare them.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Document, Element, Node } from '@xmldom/xmldom';
import { decodeXml, parseXml } from '../../src/domain/xml/parse.ts';

const FOLDER = fileURLToPath(new URL('../data/domains/edit', import.meta.url));

export type SampleDomain = { name: string; bytes: Uint8Array };

const handwritten = (): SampleDomain[] =>
  readdirSync(FOLDER)
    .sort()
    .map((name) => ({ name, bytes: readFileSync(join(FOLDER, name)) }));

const pick = <T>(list: readonly T[], n: number): T => list[n % list.length] as T;

const EOLS = ['\n', '\n', '\r\n'];
const INDENTS = ['  ', '\t', '    ', ' ', ''];
const HEADS = [
  '',
  '<?xml version="1.0" encoding="UTF-8"?>\n',
  '<!-- kept by ops, see #42 -->\n',
  "<?xml version='1.0'?>\n\n",
];
const TAILS = ['\n', '', '\n\n', '\n<!-- end -->\n', '\n<?note x?>'];
const METADATA = [
  '',
  '<metadata>\n<x:y xmlns:x="urn:x" x:a="&lt;&amp;&gt;&quot;">t<![CDATA[<devices>]]></x:y>\n</metadata>',
  '<metadata>\n<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">\n<nova:name>a &amp; b</nova:name>\n</nova:instance>\n</metadata>',
  '<metadata><l:o xmlns:l="http://libosinfo.org/xmlns/libvirt/domain/1.0"><l:os id="http://debian.org/debian/12"/></l:o></metadata>',
];
const DESCRIPTIONS = ['', '<description>x &#60; y, ümlaut</description>', '<title><![CDATA[a & b]]></title>'];
const DEVICES = [
  null,
  [],
  ['<memballoon model="none"/>'],
  [
    '<emulator>/usr/bin/qemu-system-x86_64</emulator>',
    '<controller type="pci" model="pcie-root"/>',
    '<rng model="virtio">\n<backend model="random">/dev/urandom</backend>\n</rng>',
  ],
  [
    "<disk type='file' device='disk'>\n<source file='/a&amp;b&apos;c.img'/>\n<target dev='vda'/>\n</disk>",
    '<!-- <hostdev/> goes here -->',
  ],
  [
    "<hostdev mode='subsystem' type='pci'>\n<source>\n<address domain='0' bus='48' slot='0x0' function='0'/>\n</source>\n</hostdev>",
    '<memballoon model="virtio"/>',
  ],
  [
    "<hostdev mode='subsystem' type='usb'>\n<source>\n<vendor id='0x1234'/>\n<product id='0xbeef'/>\n</source>\n</hostdev> <!-- stick -->",
    "<interface type='user'>\n<mac address='52:54:00:01:02:03'/>\n</interface>",
  ],
];
const ENDS = [
  '',
  '<seclabel type="none"/>',
  '<qemu:commandline xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">\n<qemu:arg value="-device"/>\n<qemu:arg value="x,y=&quot;1&quot;"/>\n</qemu:commandline>',
];

/** Indents lines of markup by the depth at which they begin. */
function indented(text: string, unit: string): string {
  let depth = 0;
  return text
    .split('\n')
    .map((line) => {
      const closes = /^<\//.test(line);
      if (closes) depth -= 1;
      const shown = unit.repeat(Math.max(0, depth)) + line;
      const opens = /^<[^/!?]/.test(line) && !/\/>|<\//.test(line);
      if (opens) depth += 1;
      return shown;
    })
    .join('\n');
}

/** The nth domain of the generator: always the same for the same n. */
function generated(n: number): SampleDomain {
  const devices = pick(DEVICES, n);
  const section =
    devices === null
      ? []
      : devices.length === 0
        ? [pick(['<devices/>', '<devices></devices>', '<devices>\n</devices>'], n >> 1)]
        : ['<devices>', ...devices, '</devices>'];
  const parts = [
    `<domain type='${pick(['kvm', 'qemu'], n)}'>`,
    `<name>generated-${n}</name>`,
    pick(DESCRIPTIONS, n >> 1),
    pick(METADATA, n + (n >> 2)),
    '<memory unit="MiB">64</memory>',
    "<os>\n<type arch='x86_64' machine='q35'>hvm</type>\n</os>",
    pick(['', '<features>\n<acpi/>\n</features>'], n >> 2),
    ...section,
    pick(ENDS, n >> 1),
    '</domain>',
  ].filter((p) => p !== '');
  const oneLine = n % 5 === 4;
  const body = oneLine ? parts.join('').replaceAll('\n', '') : indented(parts.join('\n'), pick(INDENTS, n));
  const text = pick(HEADS, n >> 1) + body + pick(TAILS, n >> 2);
  const bom = n % 11 === 10 ? '\uFEFF' : '';
  return { name: `generated-${n}`, bytes: Buffer.from(bom + text.replaceAll('\n', pick(EOLS, n >> 3))) };
}

export const allDomains = (): SampleDomain[] => [
  ...handwritten(),
  ...Array.from({ length: 42 }, (_, n) => generated(n)),
];

const escaped = (text: string, pattern: RegExp): string =>
  text.replace(
    pattern,
    (c) =>
      ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c] ??
      `&#x${c.charCodeAt(0).toString(16).toUpperCase()};`,
  );

/**
 * Canonical XML 1.0 with comments (https://www.w3.org/TR/xml-c14n) of a document whose namespaces are declared where
 * they are used first: declarations stay with their element, which the round trips here never move.
 */
export function canonical(bytes: Uint8Array): string {
  const document = parseXml(decodeXml(bytes, 'sample'), 'sample');
  const parts: string[] = [];
  for (let n = document.firstChild; n; n = n.nextSibling) {
    const text = canonicalNode(n);
    if (text !== '') parts.push(text);
  }
  return parts.join('\n');
}

function canonicalNode(node: Document | Node): string {
  if (node.nodeType === node.TEXT_NODE || node.nodeType === node.CDATA_SECTION_NODE)
    return node.parentNode?.nodeType === node.DOCUMENT_NODE ? '' : escaped(node.nodeValue ?? '', /[&<>\r]/g);
  if (node.nodeType === node.COMMENT_NODE) return `<!--${node.nodeValue}-->`;
  if (node.nodeType === node.PROCESSING_INSTRUCTION_NODE)
    return node.nodeName.toLowerCase() === 'xml' ? '' : `<?${`${node.nodeName} ${node.nodeValue ?? ''}`.trim()}?>`;
  if (node.nodeType !== node.ELEMENT_NODE) return '';
  const element = node as Element;
  const attributes = [...element.attributes]
    .map((a) => ({ key: `${/^xmlns/.test(a.name) ? 0 : 1} ${a.namespaceURI ?? ''} ${a.name}`, a }))
    .sort((x, y) => (x.key < y.key ? -1 : 1))
    .map(({ a }) => ` ${a.name}="${escaped(a.value, /[&<"\t\n\r]/g)}"`)
    .join('');
  let inner = '';
  for (let n = element.firstChild; n; n = n.nextSibling) inner += canonicalNode(n);
  return `<${element.nodeName}${attributes}>${inner}</${element.nodeName}>`;
}
