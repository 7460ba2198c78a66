/** A domain's text before, with a device in it, and after that device is out again. */
import { spawnSync } from 'node:child_process';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { addDevices as added, removeDevices as removed } from '../../../src/domain/device/devices.ts';
import { hostdevElement } from '../../../src/domain/device/fragments.ts';
import { nicElement } from '../../../src/domain/device/nic.ts';
import { readDomainDevices } from '../../../src/domain/hostDevices.ts';
import { child } from '../../../src/domain/xml/dom.ts';
import { edited, readDomain } from '../../../src/domain/xml/domain.ts';
import { insertIntoSection, replaceElement } from '../../../src/domain/xml/edit.ts';
import { decodeXml, parseXml } from '../../../src/domain/xml/parse.ts';
import { formatXml, LIBVIRT_LAYOUT } from '../../../src/domain/xml/write.ts';
import { HostdevError } from '../../../src/errors.ts';
import { has, isLacking } from '../../lacking.ts';
import { allDomains, canonical, type SampleDomain } from '../../mock/domains.ts';

const A = '0000:25:00.4';
const B = '0001:81:1f.7';
const passed = (address: string) => ({ address, managed: false, model: null, rom: null, boot: null });
const hostdev = (address: string, unassigned = false) => hostdevElement({ ...passed(address), unassigned });
const nic = (address: string) =>
  nicElement({ shape: 'direct', mac: '52:54:00:00:00:01', vlan: 7, profile: null, hostNode: null }, passed(address));

type Elements = Parameters<typeof added>[1];
const addDevices = (xml: string, what: string, elements: Elements): string =>
  added(readDomain(xml, what), elements).text;
const removeDevices = (xml: string, what: string, addresses: readonly string[]): string =>
  removed(readDomain(xml, what), addresses).text;

const SAMPLES = allDomains();
const rows = SAMPLES.map((s) => [s.name, s] as const);
const text = (s: SampleDomain): string => decodeXml(s.bytes, s.name);
const noXmllint = isLacking(
  has('xmllint') ? null : 'canonical XML is judged by our own canonicaliser alone: apt-get install libxml2-utils',
);

const c14n = (s: string): string => {
  const r = spawnSync('xmllint', ['--c14n', '-'], { input: s, encoding: 'utf8' });
  if (r.status !== 0) throw new Error(r.stderr);
  return r.stdout;
};

test('there are at least fifty domains, of all kinds', () => {
  expect(SAMPLES.length).toBeGreaterThanOrEqual(50);
  const all = SAMPLES.map((s) => Buffer.from(s.bytes).toString('utf8'));
  for (const has of [
    '<!--',
    'qemu:commandline',
    '<metadata',
    '<![CDATA[',
    '&quot;',
    '\t<',
    '\r\n',
    '\uFEFF',
    '<?',
    'é'.slice(0, 0),
  ])
    expect(all.some((t) => t.includes(has))).toBe(true);
  expect(all.some((t) => !t.trim().includes('\n'))).toBe(true);
  expect(all.some((t) => !/<devices/.test(t))).toBe(true);
});

describe.each(rows)('%s', (name, sample) => {
  const before = text(sample);

  test.skipIf(noXmllint)("our canonical XML is xmllint's", () => {
    const declared = before.replace(/^<\?xml [^>]*>\s*/, '');
    expect(canonical(sample.bytes)).toBe(c14n(declared).replace(/\n$/, ''));
  });

  test('with a device: all that was there is there, in one piece or two', () => {
    const after = addDevices(before, name, [hostdev(A)]);
    expect(readDomainDevices(readDomain(after, name)).devices.filter((d) => d.address === A)).toHaveLength(1);
    expect(without(before, after)).toBe(true);
  });

  test.each([
    ['one', [hostdev(A)], [[A]]],
    ['two at once', [hostdev(A), hostdev(B, true)], [[A, B]]],
    ['two, one by one', [hostdev(A), hostdev(B)], [[A], [B]]],
    ['two, the last first', [hostdev(A), hostdev(B)], [[B], [A]]],
    ['a hostdev and an interface', [hostdev(A), nic(B)], [[B], [A]]],
  ] as const)('%s in and out again: the same bytes', (_, added, removals) => {
    const after = addDevices(before, name, added);
    const back = removals.reduce((t, addresses) => removeDevices(t, name, addresses), after);
    // A <devices/> that closed itself has an end tag now: the same to XML, and the only bytes that may differ.
    const same = before.replace(/<devices\s*\/>/, (m) => `${m.slice(0, -2)}></devices>`);
    expect([before, same]).toContain(back);
    expect(canonical(Buffer.from(back))).toBe(canonical(Buffer.from(before)));
  });
});

/** True when `after` is `before` with text put into one place; `<devices/>` may have been opened for it. */
function without(before: string, after: string): boolean {
  let head = 0;
  while (head < before.length && before[head] === after[head]) head += 1;
  const tail = before.length - head;
  const rest = before.slice(head);
  return after.endsWith(rest) && after.length >= head + tail
    ? true
    : rest.startsWith('/>') && after.endsWith(rest.slice(2));
}

describe('the shape of what is written', () => {
  const indentOf = (t: string): string[] =>
    t
      .split(/\r?\n/)
      .filter((l) => /hostdev/.test(l))
      .map((l) => /^[ \t]*/.exec(l)?.[0] ?? '');

  test('indented as the neighbours are, with their line ends', () => {
    const domain =
      "<domain>\r\n\t<name>x</name>\r\n\t<devices>\r\n\t\t<memballoon model='none'/>\r\n\t</devices>\r\n</domain>\r\n";
    const after = addDevices(domain, 'x', [hostdev(A)]);
    expect(after).toContain(
      "\r\n\t\t<hostdev mode='subsystem' type='pci' managed='no'>\r\n\t\t\t<driver name='vfio'/>\r\n\t\t\t<source>\r\n\t\t\t\t<address",
    );
    expect(after.replaceAll('\r\n', '')).not.toContain('\n');
    expect(indentOf(after)).toEqual(['\t\t', '\t\t']);
  });

  test('a remark behind a device stays with it', () => {
    const domain =
      '<domain>\n  <name>x</name>\n  <devices>\n    <hub type="usb"/> <!-- mine --> <!-- too -->\n  </devices>\n</domain>';
    expect(addDevices(domain, 'x', [hostdev(A)])).toMatch(/<!-- mine --> <!-- too -->\n {4}<hostdev/);
  });

  test('on one line where the domain is', () => {
    const domain = '<domain><name>x</name><devices><hub type="usb"/></devices></domain>';
    expect(addDevices(domain, 'x', [hostdev(A)])).not.toContain('\n');
  });

  test('behind the devices of its kind, else last', () => {
    const domain = `<domain><name>x</name><devices>${formatXml(hostdev(B), null)}<hub type="usb"/></devices></domain>`;
    const after = addDevices(domain, 'x', [hostdev(A), nic('0000:01:00.0')]);
    expect(readDomainDevices(readDomain(after, 'x')).devices.map((d) => d.address)).toEqual([B, A, '0000:01:00.0']);
    expect(after).toMatch(/<\/hostdev><hub type="usb"\/><interface/);
  });

  test('a section that is not there is made where libvirt has it', () => {
    const text =
      "<domain>\n  <name>x</name>\n  <os>\n    <type>hvm</type>\n  </os>\n  <seclabel type='none'/>\n</domain>\n";
    const { text: after } = edited(readDomain(text, 'x'), (s) =>
      insertIntoSection(s, 'features', [{ name: 'ioapic', attributes: { driver: 'qemu' } }], ['os']),
    );
    expect(after).toBe(
      text.replace('  </os>\n', "  </os>\n  <features>\n    <ioapic driver='qemu'/>\n  </features>\n"),
    );
  });

  test('an element is replaced in its place', () => {
    const text =
      "<domain>\n  <name>x</name>\n  <features>\n    <ioapic driver='kvm'/> <!-- k -->\n  </features>\n</domain>\n";
    const { text: after } = edited(readDomain(text, 'x'), (s) => {
      const old = child(child(s.root, 'features') ?? s.root, 'ioapic');
      return replaceElement(s, old ?? s.root, { name: 'ioapic', attributes: { driver: 'qemu' } });
    });
    expect(after).toBe(text.replace('kvm', 'qemu'));
  });

  test('whatever a value holds, a parser reads it back', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 40 }), fc.boolean(), (value, pretty) => {
        const e = { name: 'e', attributes: { v: value, none: undefined }, children: [{ name: 'c' }] };
        let xml: string;
        try {
          xml = formatXml(e, pretty ? LIBVIRT_LAYOUT : null);
        } catch (error) {
          expect(error).toMatchObject({ code: 'HOSTDEV_USAGE' });
          return;
        }
        expect(xml).toMatch(/^[\n -~]*$/);
        expect(parseXml(xml, 'x').documentElement?.getAttribute('v')).toBe(value);
      }),
    );
  });
});

describe('what is bad is refused with its place', () => {
  const refusal = (run: () => unknown): string => {
    try {
      run();
    } catch (e) {
      if (e instanceof HostdevError && e.code === 'HOSTDEV_XML') return e.message;
      throw e;
    }
    return 'accepted';
  };

  test.each([
    ['', /line 1, column 1: there is no element/],
    ['<domain>\n <name>x</name>\n <devices>\n</domain>', /line 4, column 1: .*devices/],
    ['<!DOCTYPE domain [<!ENTITY a "&b;&b;">]><domain/>', /line 1, column 1: a DOCTYPE/],
    ['<domain><name>&x;</name></domain>', /line 1, column 15: a bare &/],
    ['<domain><name>a</name></domain><domain/>', /line 1, column 32: a second root/],
    ["<domain a='1' a='2'/>", /line 1, column 14: .*twice/],
    ['<domain>\n<name>a</name><x\u0001/></domain>', /line 2, column 17: the character U\+0001/],
    [`<domain><name>x</name>${'<a>'.repeat(300)}`, /line 1, column \d+: more than 256 elements deep/],
    ['<network/>', /line 1, column 1: the root element is <network>/],
    ['<domain xmlns="urn:x"><name>x</name></domain>', /line 1, column 1: the root element/],
  ])('%j', (bad, message) => {
    expect(refusal(() => removeDevices(bad, 'f.xml', [A]))).toMatch(message);
  });

  test('any text: a place, or a document that is still one', () => {
    const piece = fc.constantFrom(
      '<domain>',
      '</domain>',
      '<name>x</name>',
      '<devices>',
      '</devices>',
      '<devices/>',
      '<hostdev/>',
      '\r\n  ',
      '\r',
      '\t',
      '<!--',
      '-->',
      '<![CDATA[',
      ']]>',
      '<?p',
      '?>',
      '&amp;',
      '&',
      '"',
      "'",
      '<',
      '>',
      'é',
      '\u0000',
      "<hostdev type='pci'><source><address bus='1' slot='0' function='0'/></source></hostdev>",
      '<a b="',
      '/>',
    );
    const mutated = fc
      .tuple(fc.constantFrom(...SAMPLES), fc.array(fc.tuple(fc.nat(), fc.nat(12), piece), { maxLength: 3 }))
      .map(([s, cuts]) =>
        cuts.reduce(
          (t, [at, gone, put]) => t.slice(0, at % (t.length + 1)) + put + t.slice((at % (t.length + 1)) + gone),
          text(s),
        ),
      );
    const any = fc.oneof(
      fc.array(piece, { maxLength: 30 }).map((p) => p.join('')),
      mutated,
    );
    let accepted = 0;
    fc.assert(
      fc.property(any, (xml) => {
        try {
          const taken = readDomainDevices(readDomain(xml, 'f')).devices.map((d) => d.address);
          fc.pre(!taken.includes(A));
          const after = addDevices(xml, 'f', [hostdev(A)]);
          expect(
            readDomainDevices(readDomain(after, 'f'))
              .devices.map((d) => d.address)
              .sort(),
          ).toEqual([...taken, A].sort());
          expect(canonical(Buffer.from(removeDevices(after, 'f', [A])))).toBe(canonical(Buffer.from(xml)));
          accepted += 1;
        } catch (e) {
          if (!(e instanceof HostdevError)) throw e;
          expect(e).toMatchObject({
            code: 'HOSTDEV_XML',
            message: expect.stringMatching(/^f: line \d+, column \d+: /),
          });
        }
      }),
      { numRuns: 600 },
    );
    expect(accepted).toBeGreaterThan(50);
  });

  test('places are those of the text, whatever its line ends', () => {
    for (const s of SAMPLES) {
      const source = readDomain(text(s), s.name);
      const devices = child(source.root, 'devices');
      if (!devices) continue;
      const { start, end } = source.at(devices);
      expect(source.text.slice(start, start + 8)).toBe('<devices');
      expect(source.text.slice(0, end)).toMatch(/<\/devices\s*>$|<devices\s*\/>$/);
    }
  });
});
