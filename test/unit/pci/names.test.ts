import { existsSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PciNames } from '../../../src/pci/names.ts';
import { isLacking } from '../../lacking.ts';
import { cpuMs } from '../../patience.ts';

/** The forms that occur in the real file, and lines that look like others' ids. */
const EXCERPT = [
  '#',
  '#\tList of PCI IDs',
  '8086  Not this one: the next line is a comment',
  '',
  '10de  NVIDIA Corporation',
  '\t0020  NV4 [Riva TNT]',
  '\t\t1043 0200  V3400 TNT',
  '\t\t1048 0c18  Erazor II SGRAM',
  '# A comment inside a block',
  '\t0028  NV5 [Riva TNT2 / TNT2 Pro]',
  '\t\t1043 0200  AGP-V3800 SGRAM',
  '1af4  Red Hat, Inc.',
  '\t1041  Virtio 1.0 network device',
  '\t1000  ',
  '\t1001  Evil\x1b[31m\u202ename\x9b\r',
  '\t1002 One space only',
  'ffff  Illegal Vendor ID',
  '',
  'C 01  Mass storage controller',
  '\t06  SATA controller',
  '\t\t01  AHCI 1.0',
  '\t08  Non-Volatile memory controller',
  '\t\t02  NVM Express',
  'C 02  Network controller',
  '\t00  Ethernet controller',
].join('\n');

describe('an excerpt', () => {
  const names = new PciNames(EXCERPT);

  test('vendors', () => {
    expect(names.vendor('10de')).toBe('NVIDIA Corporation');
    expect(names.vendor('ffff')).toBe('Illegal Vendor ID');
    expect(names.vendor('0020')).toBeNull();
    expect(names.vendor('1234')).toBeNull();
  });

  test('the first line may be a vendor', () => {
    expect(new PciNames('10de  NVIDIA').vendor('10de')).toBe('NVIDIA');
  });

  test('devices belong to their vendor', () => {
    expect(names.device('10de', '0020')).toBe('NV4 [Riva TNT]');
    expect(names.device('10de', '0028')).toBe('NV5 [Riva TNT2 / TNT2 Pro]');
    expect(names.device('10de', '1041')).toBeNull();
    expect(names.device('1af4', '0020')).toBeNull();
    expect(names.device('1234', '0020')).toBeNull();
    expect(names.device('ffff', '0600')).toBeNull();
  });

  test('subsystems belong to their device', () => {
    expect(names.subsystem('10de', '0020', '1043', '0200')).toBe('V3400 TNT');
    expect(names.subsystem('10de', '0028', '1043', '0200')).toBe('AGP-V3800 SGRAM');
    expect(names.subsystem('10de', '0028', '1048', '0c18')).toBeNull();
    expect(names.subsystem('10de', '0099', '1048', '0c18')).toBeNull();
    expect(names.subsystem('10de', '0020', '1043', '')).toBeNull();
  });

  test('classes', () => {
    expect(names.className('020000')).toBe('Ethernet controller');
    expect(names.className('010802')).toBe('Non-Volatile memory controller');
    expect(names.className('018000')).toBe('Mass storage controller');
    expect(names.className('030000')).toBeNull();
    expect(names.className('0200')).toBeNull();
    expect(names.className('0x0200')).toBeNull();
  });

  test('empty and odd lines', () => {
    expect(names.device('1af4', '1000')).toBeNull();
    expect(names.device('1af4', '1001')).toBe('Evil[31mname');
    expect(names.device('1af4', '1002')).toBeNull();
  });

  test.each(['', '10DE', '10d', '10dee', ' 10de', '\n10de', '....', 'C 01'])('the id %j is none', (id) => {
    expect(names.vendor(id)).toBeNull();
    expect(names.device(id, '0020')).toBeNull();
    expect(names.device('10de', id)).toBeNull();
    expect(names.subsystem('10de', '0020', id, '0200')).toBeNull();
    expect(names.className(id)).toBeNull();
  });

  test('the same answer again', () => {
    expect(names.device('10de', '0020')).toBe('NV4 [Riva TNT]');
    expect(names.device('10de', '1041')).toBeNull();
  });
});

describe('a file that is none', () => {
  test('cut off anywhere', () => {
    for (let n = 0; n <= EXCERPT.length; n++) {
      const names = new PciNames(EXCERPT.slice(0, n));
      expect('V3400 TNT'.startsWith(names.subsystem('10de', '0020', '1043', '0200') ?? '')).toBe(true);
      expect(['Mass storage controller', 'SATA controller']).toContain(
        n > EXCERPT.indexOf('\t\t01  AHCI') ? names.className('010601') : 'SATA controller',
      );
    }
  });

  test('anything at all', () => {
    const text = fc.array(
      fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('\n', '\t', '10de  ', '0020  ', 'C 02  ', '00  ')),
    );
    fc.assert(
      fc.property(text, (pieces) => {
        const names = new PciNames(pieces.join(''));
        const all = [names.vendor('10de'), names.device('10de', '0020'), names.className('020000')];
        for (const name of all) {
          expect(name ?? 'x').toMatch(/^[^\p{Cc}\p{Cf}\u2028\u2029]{1,200}$/u);
        }
      }),
    );
  });

  test('huge', () => {
    const names = new PciNames(`10de  ${'x'.repeat(40e6)}\n1af4  too far`);
    expect(names.vendor('10de')).toHaveLength(200);
    expect(names.vendor('1af4')).toBeNull();
  });
});

const REAL = '/usr/share/misc/pci.ids';

const noNames = isLacking(existsSync(REAL) ? null : `${REAL}: apt-get install pci.ids`);

describe.skipIf(noNames)(`the file of this host (${REAL})`, () => {
  const text = existsSync(REAL) ? readFileSync(REAL, 'utf8') : '';

  test('known names', () => {
    const names = new PciNames(text);
    expect(names.vendor('8086')).toBe('Intel Corporation');
    expect(names.device('8086', '10c9')).toBe('82576 Gigabit Network Connection');
    expect(names.subsystem('8086', '10c9', '8086', 'a03c')).toBe('Gigabit ET Dual Port Server Adapter');
    expect(names.className('030000')).toBe('VGA compatible controller');
    expect(names.className('060400')).toBe('PCI bridge');
  });

  /** Read line by line, as the format's own head says. */
  const lines = text.split('\n');

  test('every vendor, and the devices of some, as read line by line', () => {
    const names = new PciNames(text);
    let vendor = '';
    let count = 0;
    for (const line of lines) {
      if (line.startsWith('C ')) break;
      const v = /^([0-9a-f]{4}) {2}(.*)/.exec(line);
      if (v) {
        vendor = v[1] ?? '';
        expect(names.vendor(vendor)).toBe((v[2] ?? '').trim());
        count++;
      }
      const d = /^\t([0-9a-f]{4}) {2}(.*)/.exec(line);
      if (d && vendor.startsWith('1a')) expect(names.device(vendor, d[1] ?? '')).toBe((d[2] ?? '').trim());
    }
    expect(count).toBeGreaterThan(1000);
  });

  test('thirty ids in some milliseconds, four thousand devices in no more', () => {
    const ids: [string, string][] = [];
    let vendor = '';
    for (const line of lines) {
      if (/^[0-9a-f]{4} /.test(line)) vendor = line.slice(0, 4);
      else if (/^\t[0-9a-f]{4} /.test(line) && ['8086', '10de', '15b3', '1af4'].includes(vendor))
        ids.push([vendor, line.slice(1, 5)]);
    }
    const some = Array.from({ length: 29 }, (_, n) => ids[Math.floor((n * ids.length) / 29)] ?? ['8086', '10c9']);
    const list = Array.from({ length: 4000 }, (_, n) => some[n % 29] ?? ['8086', '10c9']);
    const time = () => {
      const names = new PciNames(text);
      const start = cpuMs();
      for (const [v, d] of list) {
        names.vendor(v ?? '');
        names.device(v ?? '', d ?? '');
        names.className('020000');
      }
      names.device('fffe', '0001');
      return cpuMs() - start;
    };
    // About 8 ms here; a lookup that isn't remembered makes it seconds.
    expect(Math.min(time(), time(), time(), time())).toBeLessThan(30);
  });
});
