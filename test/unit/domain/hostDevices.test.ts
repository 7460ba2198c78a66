import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type DomainDevices, readDomainDevices } from '../../../src/domain/hostDevices.ts';
import { readDomain } from '../../../src/domain/xml/domain.ts';
import { HostdevError } from '../../../src/errors.ts';
import { formatAddress } from '../../../src/pci/address.ts';
import { cpuMs } from '../../patience.ts';

const fixture = (name: string): string => readFileSync(new URL(`../../data/domains/${name}`, import.meta.url), 'utf8');
const UUID = '624392bd-9784-4e20-8b29-1e85f123c67d';

/** A domain on few lines: the device elements begin on line 2. */
const domain = (devices: string, head = `<name>d</name><uuid>${UUID}</uuid>`): string =>
  `<domain type='kvm'>${head}<devices>\n${devices}\n</devices></domain>`;
const read = (devices: string): DomainDevices => readDomainDevices(readDomain(domain(devices), 'in.xml'));

function refusal(text: string): string {
  try {
    readDomainDevices(readDomain(text, 'in.xml'));
  } catch (e) {
    if (e instanceof HostdevError && e.code === 'HOSTDEV_XML') return e.message;
    throw e;
  }
  return 'accepted';
}

const address = (a: string): string => `<source><address ${a}/></source>`;
const hostdev = (a: string, attributes = "mode='subsystem' type='pci'", more = ''): string =>
  `<hostdev ${attributes}>${address(a)}${more}</hostdev>`;
const at = (bus: number): string => `domain='0' bus='${bus}' slot='0' function='0'`;
const nvme = (bus: number, namespace: number, managed = ''): string =>
  `<disk type='nvme'><source type='pci' namespace='${namespace}' ${managed}><address ${at(bus)}/></source></disk>`;

describe('what libvirt gave its hook', () => {
  test.each(['hook-prepare-unmanaged.xml', 'hook-started-unmanaged.xml'])('%s', (name) => {
    const answer = readDomainDevices(readDomain(fixture(name), name));
    expect(answer).toMatchObject({ name: 'h1', uuid: UUID, networks: [], ignored: [] });
    expect(answer.devices.map((d) => d.address)).toEqual(['0000:21:10.0', '0000:26:01.0', '0000:26:02.0']);
    for (const d of answer.devices) {
      expect(d).toMatchObject({ kind: 'hostdev', managed: false, model: null, unassigned: false });
      const line = Number(/\(line (\d+)\)$/.exec(d.where)?.[1]);
      expect(fixture(name).split('\n')[line - 1]).toContain('<hostdev ');
    }
  });

  test('hook-prepare-managed.xml', () => {
    const answer = readDomainDevices(readDomain(fixture('hook-prepare-managed.xml'), 'stdin'));
    expect(answer.devices).toHaveLength(1);
    expect(answer.devices[0]?.managed).toBe(true);
  });
});

describe('hostdev', () => {
  test('all that there is to know of one', () => {
    const more = "<driver name='vfio' model='mlx5_vfio_pci'/><address type='unassigned'/>";
    const answer = read(
      hostdev("domain='0x10000' bus='0xe1' slot='0x1f' function='0x7'", "type='pci' managed='yes'", more),
    );
    expect(answer.devices).toEqual([
      {
        address: '10000:e1:1f.7',
        kind: 'hostdev',
        managed: true,
        model: 'mlx5_vfio_pci',
        unassigned: true,
        where: 'hostdev 1 (line 2)',
      },
    ]);
  });

  test.each([
    ["bus='010' slot='07' function='00'", '0000:08:07.0'],
    ["bus='10' slot='31' function='7'", '0000:0a:1f.7'],
    ["bus='0X1F' slot='0x0000000000000001' function='0'", '0000:1f:01.0'],
    ["domain='4294967295' bus='255' slot='0' function='0'", 'ffffffff:ff:00.0'],
  ])('%s is %s, as strtoul with base 0 reads it', (a, expected) => {
    expect(read(hostdev(a)).devices[0]?.address).toBe(expected);
  });

  test.each([
    ["slot='0' function='0'", "the PCI address has no attribute 'bus'"],
    ["bus='1' function='0'", "the PCI address has no attribute 'slot'"],
    ["bus='1' slot='0'", "the PCI address has no attribute 'function'"],
    ["bus='' slot='0' function='0'", "'bus' of the PCI address is '', which is no number"],
    ["bus='08' slot='0' function='0'", "'bus' of the PCI address is '08', which is no number"],
    ["bus='-1' slot='0' function='0'", "'bus' of the PCI address is '-1', which is no number"],
    ["bus=' 1' slot='0' function='0'", "'bus' of the PCI address is ' 1', which is no number"],
    ["bus='0x' slot='0' function='0'", "'bus' of the PCI address is '0x', which is no number"],
    ["bus='256' slot='0' function='0'", "'bus' of the PCI address is '256', above 0xff"],
    ["bus='1' slot='0x20' function='0'", "'slot' of the PCI address is '0x20', above 0x1f"],
    ["bus='1' slot='0' function='8'", "'function' of the PCI address is '8', above 0x7"],
    ["domain='0x100000000' bus='1' slot='0' function='0'", "is '0x100000000', above 0xffffffff"],
  ])('%s is refused', (a, reason) => {
    expect(refusal(domain(hostdev(a)))).toMatch(/^in\.xml: line 2, column \d+: /);
    expect(refusal(domain(hostdev(a)))).toContain(reason);
  });

  test('the place of a wrong attribute is that of the attribute', () => {
    const text = domain(
      "<hostdev type='pci'>\n <source>\n  <address bus='1'\n   slot='99' function='0'/>\n </source></hostdev>",
    );
    expect(refusal(text)).toMatch(/^in\.xml: line 5, /);
  });

  test.each([
    ["<hostdev type='pci'/>", 'hostdev 1 (line 2) has no <source>'],
    ["<hostdev type='pci'><source/></hostdev>", 'hostdev 1 (line 2) has no <address> in its <source>'],
    ["<hostdev mode='subsystem'/>", "hostdev 1 (line 2) has no attribute 'type'"],
    [hostdev(at(1), "type='pci' managed='true'"), "'managed' is 'true', neither yes nor no"],
    [hostdev(at(1), "type='pci'", "<driver model='../x'/>"), "'model' is '../x', no name of a driver or module"],
    [hostdev(at(1), "type='pci'", "<driver model=''/>"), "'model' is '', no name of a driver or module"],
  ])('%s is refused', (devices, reason) => {
    expect(refusal(domain(devices))).toContain(reason);
  });

  test('what is no PCI device is named, not judged', () => {
    const usb = "<hostdev mode='subsystem' type='usb'><source/></hostdev>";
    const answer = read(`${usb}<hostdev mode='capabilities' type='net'/><hostdev type='mdev' model='vfio-pci'/>`);
    expect(answer.devices).toEqual([]);
    expect(answer.ignored).toEqual([
      'hostdev 1 (line 2): subsystem usb',
      'hostdev 2 (line 2): capabilities net',
      'hostdev 3 (line 2): subsystem mdev',
    ]);
  });

  test('an address twice is refused with both places, however it is spelt', () => {
    const text = domain(`${hostdev("bus='10' slot='0' function='0'")}\n${hostdev("bus='0xa' slot='0' function='0'")}`);
    const message = 'in.xml: line 3, column 1: 0000:0a:00.0 is listed twice: hostdev 1 (line 2) and hostdev 2 (line 3)';
    expect(refusal(text)).toBe(message);
  });

  test('ten thousand of them are no matter', () => {
    const all = Array.from({ length: 10_000 }, (_, i) => hostdev(`domain='${i}' bus='1' slot='0' function='0'`));
    const start = cpuMs();
    expect(read(all.join('\n')).devices).toHaveLength(10_000);
    expect(cpuMs() - start).toBeLessThan(5000);
  });
});

describe('interface', () => {
  const vf = (bus: number, type = "type='pci'", attributes = "managed='yes'"): string =>
    `<interface type='hostdev' ${attributes}><mac address='52:54:00:0:1:2'/>${address(`${type} ${at(bus)}`)}</interface>`;

  test('a VF by its address', () => {
    expect(read(vf(3)).devices).toEqual([
      {
        address: '0000:03:00.0',
        kind: 'interface',
        managed: true,
        model: null,
        unassigned: false,
        where: 'interface 1 (line 2)',
      },
    ]);
  });

  test.each([
    ["<interface type='hostdev'/>", 'interface 1 (line 2) has no <source>'],
    ["<interface type='hostdev'><source/></interface>", 'has no <address> in its <source>'],
    [vf(3, ''), "without type='pci'"],
    [vf(3, "type='usb'"), "without type='pci'"],
    [`${hostdev(at(3))}${vf(3)}`, '0000:03:00.0 is listed twice: hostdev 1 (line 2) and interface 1 (line 2)'],
  ])('%s is refused', (devices, reason) => {
    expect(refusal(domain(devices))).toContain(reason);
  });

  test('networks are named once, other kinds not at all', () => {
    const net = (name: string) => `<interface type='network'><source network='${name}'/></interface>`;
    const answer = read(
      `${net('pool')}${net('default')}${net('pool')}<interface type='bridge'><source bridge='br0'/></interface>`,
    );
    expect(answer).toMatchObject({ devices: [], networks: ['pool', 'default'] });
  });
});

describe('nvme', () => {
  test('namespaces share their controller', () => {
    const answer = read(`<disk type='file'/>${nvme(4, 1, "managed='yes'")}${nvme(4, 2, "managed='yes'")}${nvme(5, 1)}`);
    expect(answer.devices).toMatchObject([
      { address: '0000:04:00.0', kind: 'nvme', managed: true, where: 'disk 2 (line 2)' },
      { address: '0000:05:00.0', kind: 'nvme', managed: false, where: 'disk 4 (line 2)' },
    ]);
  });

  test('but they must agree on who manages it', () => {
    const text = domain(`${nvme(4, 1, "managed='yes'")}${nvme(4, 2)}`);
    expect(refusal(text)).toContain("0000:04:00.0 is managed='yes' in one and 'no' in the other");
  });

  test('a controller is not passed through as well', () => {
    expect(refusal(domain(`${hostdev(at(4))}${nvme(4, 1)}`))).toContain('0000:04:00.0 is listed twice');
  });

  test('what a disk is based on counts too', () => {
    const layer = nvme(6, 1).replaceAll('disk', 'backingStore');
    const answer = read(`<disk type='file'><backingStore type='file'>${layer}</backingStore></disk>`);
    expect(answer.devices).toMatchObject([{ address: '0000:06:00.0', kind: 'nvme' }]);
  });
});

describe('the domain itself', () => {
  test.each([
    ['<domstatus><domain/></domstatus>', 'the root element is <domstatus>'],
    ['<domainsnapshot/>', 'the root element is <domainsnapshot>'],
    [
      "<domain xmlns='urn:x'><name>d</name></domain>",
      'the root element is <domain> and not <domain> without a namespace',
    ],
    ["<q:domain xmlns:q='urn:x'/>", 'the root element is <q:domain>'],
    ['<domain/>', 'the domain has no <name>'],
    ['<domain><name/></domain>', 'the name has 0 characters'],
    [`<domain><name>${'x'.repeat(256)}</name></domain>`, 'the name has 256 characters'],
    ['<domain><name>a/b</name></domain>', "the name 'a/b' has a / or a control character"],
    ['<domain><name>a\nb</name></domain>', "the name 'a?b' has a / or a control character"],
    ['<domain><name>a&#x9b;b</name></domain>', 'has a / or a control character'],
    ['<domain><name>a</name><uuid>x</uuid></domain>', "'x' is no UUID"],
    [`<domain><name>a</name><uuid>${UUID}0</uuid></domain>`, 'is no UUID'],
  ])('%.70s is refused', (text, reason) => {
    expect(refusal(text)).toContain(reason);
  });

  test.each([UUID, UUID.toUpperCase(), UUID.replaceAll('-', ''), `\n  ${UUID} `])('the UUID %j', (uuid) => {
    expect(readDomainDevices(readDomain(domain('', `<name>d</name><uuid>${uuid}</uuid>`), 'in.xml')).uuid).toBe(UUID);
  });

  test('no UUID is no fault, and no devices either', () => {
    const answer = readDomainDevices(readDomain('<domain><name>d e</name></domain>', 'in.xml'));
    expect(answer).toEqual({ name: 'd e', uuid: null, devices: [], networks: [], ignored: [] });
  });

  test('only what is directly below devices counts', () => {
    const hidden = hostdev(at(1));
    const text =
      `<domain xmlns:q='urn:q'><metadata><name>no</name><q:x xmlns='urn:y'>${hidden}</q:x>` +
      `<devices>${hidden}</devices></metadata>` +
      `<name>d</name>${hidden}<devices><q:hostdev type='pci'/><x>${hidden}</x>` +
      `<hostdev xmlns='urn:z' type='pci'/><!-- ${hidden} --></devices><devices>${hostdev(at(2))}</devices></domain>`;
    const answer = readDomainDevices(readDomain(text, 'in.xml'));
    expect(answer.name).toBe('d');
    expect(answer.devices.map((d) => d.address)).toEqual(['0000:02:00.0']);
  });
});

test('every address is read back, in hex, decimal and octal', () => {
  const part = (max: number) => fc.integer({ min: 0, max });
  const address = fc.record({ domain: part(0xffffffff), bus: part(0xff), slot: part(0x1f), func: part(7) });
  const base = fc.constantFrom(
    (n: number) => `${n}`,
    (n: number) => `0x${n.toString(16)}`,
    (n: number) => `0${n.toString(8)}`,
  );
  fc.assert(
    fc.property(address, base, (p, text) => {
      const a = `domain='${text(p.domain)}' bus='${text(p.bus)}' slot='${text(p.slot)}' function='${text(p.func)}'`;
      expect(read(hostdev(a)).devices[0]?.address).toBe(formatAddress(p));
    }),
  );
});

test('a domain with anything changed in it is read or refused, and what is read is sound', () => {
  const base = fixture('hook-started-unmanaged.xml').replace(
    '<watchdog',
    `${nvme(7, 1)}<interface type='hostdev'>${address(`type='pci' ${at(8)}`)}</interface><watchdog`,
  );
  const junk = fc.oneof(
    fc.string({ maxLength: 8, unit: 'binary' }),
    fc.constantFrom(
      '<',
      '>',
      '/',
      '"',
      "'",
      '&',
      '\0',
      '<!DOCTYPE x>',
      '</hostdev>',
      '<hostdev>',
      '0x',
      '-',
      'yes',
      '😀',
      '\uD800',
    ),
  );
  const edit = fc.record({ from: fc.nat(base.length), length: fc.nat(30), junk });
  const devices = base.indexOf('<hostdev');
  const near = fc.record({ from: fc.integer({ min: devices, max: devices + 1500 }), length: fc.nat(6), junk });
  fc.assert(
    fc.property(fc.array(fc.oneof(edit, near), { minLength: 1, maxLength: 3 }), (edits) => {
      let text = base;
      for (const e of edits) text = text.slice(0, e.from) + e.junk + text.slice(e.from + e.length);
      if (refusal(text) !== 'accepted') return;
      for (const d of readDomainDevices(readDomain(text, 'in.xml')).devices) {
        expect(d.address).toMatch(/^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/);
      }
    }),
    { numRuns: 2000 },
  );
});
