import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { denylistAdvice, denylisted } from '../../../src/binding/drivers/denylist.ts';
import { chooseVariant, parseModalias } from '../../../src/binding/drivers/variant.ts';
import { cpuMs } from '../../patience.ts';

/** As depmod writes them for mainline's variants, the generic one in the middle, and neighbours that mustn't match. */
const ALIASES = [
  '# Aliases extracted from modules themselves.',
  'alias pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_core',
  'alias vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci',
  'alias vfio_pci:v000019E5d0000A251sv*sd*bc*sc*i* hisi_acc_vfio_pci',
  'alias vfio_pci:v000019E5d0000A256sv*sd*bc*sc*i* hisi_acc_vfio_pci',
  'alias vfio_pci:v000019E5d0000A259sv*sd*bc*sc*i* hisi_acc_vfio_pci',
  'alias vfio_pci:v00001DD8d00001003sv*sd*bc*sc*i* pds_vfio_pci',
  'alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci',
  'alias vfio_pci:v00001AF4d00001041sv*sd*bc*sc*i* virtio_vfio_pci',
  'alias vfio_pci:v000010DEd00002342sv*sd*bc*sc*i* nvgrace_gpu_vfio_pci',
  'alias vfio_pci:v000010DEd00002345sv*sd*bc*sc*i* nvgrace_gpu_vfio_pci',
  'alias vfio_pci:v00008086d00004941sv*sd*bc*sc*i* qat_vfio_pci',
  'alias vfio_pci:v00008086d00004943sv*sd*bc*sc*i* qat_vfio_pci',
  'alias vfio_pci:v00008086d00004945sv*sd*bc*sc*i* qat_vfio_pci',
  'alias vfio_pci:v00001014d000004EDsv*sd*bc*sc*i* ism_vfio_pci',
  'alias vfio_pci:v00008086d*sv*sd*bc03sc*i* xe_vfio_pci',
  'alias vfio_cdx:v000010EEd* vfio_cdx',
  '',
].join('\n');

const device = (v: string, d: string, rest = 'sv00000001sd00000002bc02sc00i00'): string =>
  `pci:v0000${v}d0000${d}${rest}\n`;
const builtin = (...records: string[]): string => records.map((r) => `${r}\0`).join('');
const GENERIC = 'vfio_pci:v*d*sv*sd*bc*sc*i*';

describe('parseModalias', () => {
  test('splits both prefixes', () => {
    const fields = { v: '00008086', d: '000010C9', sv: '00008086', sd: '0000A03C', bc: '02', sc: '00', i: '00' };
    expect(parseModalias('pci:v00008086d000010C9sv00008086sd0000A03Cbc02sc00i00')).toEqual(fields);
    expect(parseModalias('vfio_pci:v00008086d*sv*sd*bc02sc*i*')).toEqual({
      ...{ v: '00008086', d: '*', sv: '*', sd: '*', bc: '02', sc: '*', i: '*' },
    });
  });

  test.each([
    '',
    'pci:',
    'usb:v00008086d000010C9sv00008086sd0000A03Cbc02sc00i00',
    'pci:v00008086d000010C9sv00008086sd0000A03Cbc02sc00',
    'pci:v00008086d000010C9sv00008086sd0000A03Cbc02sc00i',
    'pci:v00008086d000010C9sv00008086sd0000A03Cbc02sc00i00 ',
    'pci:v00008086d000010c9sv00008086sd0000A03Cbc02sc00i00',
    'pci:v00008086d00*sv*sd*bc*sc*i*',
    ` ${GENERIC}`,
    `pci:v${'0'.repeat(1e6)}d*sv*sd*bc*sc*i*`,
  ])('%.60j is none', (text) => {
    expect(parseModalias(text)).toBeNull();
  });
});

describe('chooseVariant', () => {
  test.each([
    ['15B3', '101E', 'mlx5_vfio_pci'],
    ['19E5', 'A259', 'hisi_acc_vfio_pci'],
    ['1DD8', '1003', 'pds_vfio_pci'],
    ['1AF4', '1041', 'virtio_vfio_pci'],
    ['10DE', '2345', 'nvgrace_gpu_vfio_pci'],
    ['8086', '4943', 'qat_vfio_pci'],
    ['1014', '04ED', 'ism_vfio_pci'],
  ])('%s:%s is for %s', (v, d, module) => {
    expect(chooseVariant(device(v, d), ALIASES, null)).toEqual({ module, wildcards: 5, source: 'modules.alias' });
  });

  test('all else is for vfio_pci', () => {
    const generic = { module: 'vfio_pci', wildcards: 7, source: 'modules.alias' };
    expect(chooseVariant(device('8086', '10C9'), ALIASES, null)).toEqual(generic);
    expect(chooseVariant(device('15B3', '1021'), ALIASES, null)).toEqual(generic);
  });

  test('a class may choose as well', () => {
    const found = chooseVariant(device('8086', '56C0', 'sv00000001sd00000002bc03sc80i00'), ALIASES, null);
    expect(found).toEqual({ module: 'xe_vfio_pci', wildcards: 5, source: 'modules.alias' });
  });

  test('the first line wins a tie', () => {
    const lines = 'alias vfio_pci:v00008086d*sv*sd*bc*sc*i* first\nalias vfio_pci:v*d*sv*sd*bc02sc*i* second\n';
    expect(chooseVariant(device('8086', '10C9'), lines, null)?.module).toBe('first');
  });

  test('lines that are no aliases are passed over', () => {
    const p = 'vfio_pci:v00008086d000010C9sv*sd*bc*sc*i*';
    const bad = [
      `alias ${p}`,
      `alias ${p} `,
      `alias ${p} a b`,
      `alias ${p} ../evil`,
      `alias ${p} a\r`,
      `alias ${p}x a`,
      `#alias ${p} a`,
      ` alias ${p} a`,
      `alias  ${p} a`,
      `alias ${p} ${'a'.repeat(1000)}`,
      'alias vfio_pci: a',
    ];
    expect(chooseVariant(device('8086', '10C9'), bad.join('\n'), null)).toBeNull();
    expect(chooseVariant(device('8086', '10C9'), `${bad.join('\n')}\nalias ${p} good`, null)?.module).toBe('good');
  });

  test('what is built in is asked too, and loses ties', () => {
    const mlx5 = `mlx5_vfio_pci.alias=vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*`;
    const records = builtin('vfio_pci.license=GPL v2', `vfio_pci.alias=${GENERIC}`, mlx5);
    const wanted = { module: 'mlx5_vfio_pci', wildcards: 5, source: 'modules.builtin.modinfo' };
    expect(chooseVariant(device('15B3', '101E'), '', records)).toEqual(wanted);
    expect(chooseVariant(device('15B3', '101E'), 'alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n', records)).toEqual(
      wanted,
    );
    expect(chooseVariant(device('15B3', '101E'), ALIASES, records)?.source).toBe('modules.alias');
    expect(chooseVariant(device('8086', '10C9'), '', records)).toMatchObject({ module: 'vfio_pci', wildcards: 7 });
  });

  test('broken records are passed over', () => {
    const records = builtin(
      `.alias=${GENERIC}`,
      `a/b.alias=${GENERIC}`,
      `a b.alias=${GENERIC}`,
      `${'a'.repeat(1000)}.alias=${GENERIC}`,
    );
    expect(chooseVariant(device('8086', '10C9'), '', records)).toBeNull();
    expect(chooseVariant(device('8086', '10C9'), '', `${records}vfio_pci.alias=${GENERIC}`)?.module).toBe('vfio_pci');
  });

  test('nothing fits, or the modalias is none', () => {
    expect(chooseVariant(device('8086', '10C9'), '', null)).toBeNull();
    expect(chooseVariant('', ALIASES, null)).toBeNull();
    expect(chooseVariant('pci:\n', ALIASES, null)).toBeNull();
  });

  test('is as the plain reading of the rule has it', () => {
    const hex = fc.constantFrom('00000001', '00000002', '01', '02');
    const field = fc.oneof(hex, fc.constant('*'));
    const write = (f: readonly string[]) => `v${f[0]}d${f[1]}sv${f[2]}sd${f[3]}bc${f[4]}sc${f[5]}i${f[6]}`;
    const seven = <T>(a: fc.Arbitrary<T>) => fc.array(a, { minLength: 7, maxLength: 7 });
    const pattern = fc.oneof(
      seven(field),
      seven(fc.oneof({ weight: 6, arbitrary: fc.constant('*') }, { weight: 1, arbitrary: hex })),
    );
    const aliases = fc.array(pattern, { maxLength: 20 });
    const naive = (wanted: readonly string[], all: string[][], prefix: string) => {
      const ranked = all
        .map((f, n) => ({ module: `${prefix}${n}`, wildcards: f.filter((x) => x === '*').length, f }))
        .filter(({ f }) => f.every((x, i) => x === '*' || x === wanted[i]));
      return ranked.sort((a, b) => a.wildcards - b.wildcards)[0];
    };
    fc.assert(
      fc.property(seven(hex), aliases, aliases, (wanted, loadable, built) => {
        const lines = loadable
          .map((f, n) => `alias vfio_pci:${write(f)} m${n}\n`)
          .join('alias pci:v*d*sv*sd*bc*sc*i* no\n');
        const records = builtin(...built.map((f, n) => `b${n}.alias=vfio_pci:${write(f)}`));
        const a = naive(wanted, loadable, 'm');
        const b = naive(wanted, built, 'b');
        const best = a && b ? (b.wildcards < a.wildcards ? b : a) : (a ?? b);
        const found = chooseVariant(`pci:${write(wanted)}\n`, lines, records);
        expect(found && [found.module, found.wildcards]).toEqual(best ? [best.module, best.wildcards] : null);
        if (found) expect(found.source).toBe(best === b ? 'modules.builtin.modinfo' : 'modules.alias');
      }),
      { numRuns: 1000 },
    );
  });

  test('any text is taken', () => {
    const text = fc.array(
      fc.oneof(fc.string(), fc.constantFrom('alias vfio_pci:', GENERIC, '\n', '\0', ' a', '.alias=vfio_pci:')),
    );
    fc.assert(
      fc.property(text, text, (a, b) => {
        const found = chooseVariant(device('8086', '10C9'), a.join(''), b.join(''));
        if (found) expect(found.module).toMatch(/^[A-Za-z0-9_-]{1,55}$/);
      }),
    );
  });

  test('a big table costs no more than a search', () => {
    const noise = Array.from({ length: 40_000 }, (_, n) => `alias pci:v0000${n}d*sv*sd*bc*sc*i* module_${n}`).join(
      '\n',
    );
    const table = `${noise}\n${ALIASES}${noise}`;
    expect(table.length).toBeGreaterThan(2e6);
    const flat = Buffer.from(table, 'latin1').toString('latin1');
    const time = () => {
      const start = cpuMs();
      expect(chooseVariant(device('15B3', '101E'), flat, flat)?.module).toBe('mlx5_vfio_pci');
      return cpuMs() - start;
    };
    expect(Math.min(time(), time(), time())).toBeLessThan(20);
    const hostile = 'alias vfio_pci:'.repeat(100_000);
    expect(chooseVariant(device('15B3', '101E'), hostile, '.alias=vfio_pci:'.repeat(100_000))).toBeNull();
  });
});

describe('denylisted', () => {
  test.each(['19e2', '19e3', '37c8', '37c9', '0435', '0443', '0b25', '0cfe'])('8086:%s', (id) => {
    expect(denylisted('8086', id)?.family).toMatch(/^Intel /);
    expect(denylisted('15b3', id)).toBeNull();
  });

  test.each(['10c9', '37C8', '4941', '', '__proto__', 'toString'])('not 8086:%s', (id) => {
    expect(denylisted('8086', id)).toBeNull();
  });

  test('the advice names every way and the risk', () => {
    for (const word of [
      'options vfio-pci disable_denylist=1',
      'vfio_pci.disable_denylist=1',
      '/sys/module/vfio_pci/parameters/disable_denylist',
      'hang the host',
    ]) {
      expect(denylistAdvice()).toContain(word);
    }
  });
});
