import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type ConfigSpace, lackedAcs, parseConfig } from '../../../src/pci/configSpace.ts';
import { ACS_ON, configBytes, type MockConfig } from '../../mock/config.ts';

const parse = (c: MockConfig): ConfigSpace => parseConfig(configBytes(c)) as ConfigSpace;

describe('what a config space says', () => {
  test('type, ACS, bus numbers, several functions', () => {
    expect(parse({ pcie: 'root-port', buses: [0x21, 0x23], acs: { cap: 0x1f, ctrl: 0x1d } })).toEqual({
      headerType: 1,
      multifunction: false,
      bus: { secondary: 0x21, subordinate: 0x23 },
      pcie: 'root-port',
      acs: { cap: 0x1f, ctrl: 0x1d },
      fault: null,
    });
    expect(parse({ multifunction: true })).toMatchObject({ headerType: 0, multifunction: true, bus: null, acs: null });
    expect(parse({ pcie: null })).toMatchObject({ pcie: null, acs: null, fault: null });
  });

  test('a type that no specification knows', () => {
    const bytes = configBytes();
    bytes[0x62] = 0xd2;
    expect(parseConfig(bytes)).toMatchObject({ pcie: 'reserved', acs: null });
  });

  test('without root only the header: not measured, unless the header says that there is no list', () => {
    expect(parseConfig(configBytes({ size: 64 }))).toEqual({
      unmeasured: expect.stringContaining('needs root'),
      root: true,
    });
    const plain = configBytes({ size: 64 }).slice();
    plain[0x06] = 0;
    expect(parseConfig(plain)).toMatchObject({ pcie: null, acs: null });
    expect(parseConfig(new Uint8Array(63))).toEqual({ unmeasured: expect.stringContaining('63 bytes') });
    expect(parseConfig(new Uint8Array(0))).toHaveProperty('unmeasured');
  });

  test('no extended space: the kernel has no ACS there either', () => {
    expect(parse({ pcie: 'root-port', acs: ACS_ON, size: 256 })).toMatchObject({ pcie: 'root-port', acs: null });
  });

  test('a function that is gone answers ff everywhere; a VF only for its ids', () => {
    expect(parseConfig(new Uint8Array(4096).fill(0xff))).toEqual({ unmeasured: expect.stringContaining('ff') });
    const vf = configBytes();
    vf.fill(0xff, 0, 4);
    expect(parseConfig(vf)).toMatchObject({ headerType: 0, pcie: 'endpoint' });
  });

  test('lists that run in a circle are said and not followed', () => {
    const caps = configBytes({ pcie: null });
    caps[0x41] = 0x40;
    expect(parseConfig(caps)).toMatchObject({ pcie: null, fault: expect.stringContaining('circle at 0x40') });
    const two = configBytes({ pcie: null });
    two.set([0x09, 0x50], 0x40);
    two.set([0x09, 0x40], 0x50);
    expect(parseConfig(two)).toMatchObject({ fault: expect.stringContaining('circle') });
    const extended = configBytes();
    new DataView(extended.buffer).setUint32(0x100, 0x0001 | (0x100 << 20), true);
    expect(parseConfig(extended)).toMatchObject({ acs: null, fault: expect.stringContaining('circle at 0x100') });
  });

  test('a chain as long as the space holds is followed to its end', () => {
    const bytes = configBytes();
    const view = new DataView(bytes.buffer);
    for (let at = 0x100; at < 0xff0; at += 8) view.setUint32(at, 0x0002 | ((at + 8) << 20), true);
    view.setUint32(0xff0, 0x000d | (1 << 16), true);
    view.setUint32(0xff4, 0x001d001d, true);
    expect(parseConfig(bytes)).toMatchObject({ acs: ACS_ON, fault: null });
  });

  test('an ACS capability at the very end has no room for its registers', () => {
    const bytes = configBytes();
    const view = new DataView(bytes.buffer);
    view.setUint32(0x100, 0x0001 | (0xffc << 20), true);
    view.setUint32(0xffc, 0x000d, true);
    expect(parseConfig(bytes)).toMatchObject({ acs: null });
  });

  test('any bytes at all: an answer, at once', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 5000, size: 'max' }), fc.boolean(), (bytes, hasList) => {
        if (hasList && bytes.length > 0x34) bytes[0x06] = 0x10;
        const c = parseConfig(bytes);
        if ('unmeasured' in c) expect(c.unmeasured).not.toBe('');
        else expect(lackedAcs(c).kind).toMatch(/^(none|conventional|no-capability|bits)$/);
      }),
      { numRuns: 2000 },
    );
  });

  test('any list in a sound header: found is what a walk with a limit finds, and never read past the end', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.integer({ min: 0x100, max: 0xfff }), fc.nat()), { maxLength: 64 }), (words) => {
        const bytes = configBytes({ pcie: 'root-port', buses: [1, 1] });
        const view = new DataView(bytes.buffer);
        for (const [at, value] of words) view.setUint32(Math.min(at & ~3, 0xffc), value >>> 0, true);
        const c = parseConfig(bytes);
        expect(c).toHaveProperty('pcie', 'root-port');
      }),
    );
  });
});

describe('isolation, as pci_acs_enabled judges it', () => {
  const kind = (c: MockConfig) => lackedAcs(parse(c)).kind;

  test.each(['root-port', 'downstream-port'] as const)('a %s must have it', (pcie) => {
    expect(kind({ pcie, buses: [1, 1] })).toBe('no-capability');
    expect(kind({ pcie, buses: [1, 1], acs: ACS_ON })).toBe('none');
    expect(lackedAcs(parse({ pcie, buses: [1, 1], acs: { cap: 0x1d, ctrl: 0x08 } }))).toEqual({
      kind: 'bits',
      bits: ['SV', 'RR', 'UF'],
    });
  });

  test('a bit that the capability does not list is wired on, and egress control is not asked for', () => {
    expect(kind({ pcie: 'root-port', buses: [1, 1], acs: { cap: 0x20, ctrl: 0 } })).toBe('none');
    expect(kind({ pcie: 'root-port', buses: [1, 1], acs: { cap: 0x04, ctrl: 0x04 } })).toBe('none');
    expect(kind({ pcie: 'root-port', buses: [1, 1], acs: { cap: 0x04, ctrl: 0x3b } })).toBe('bits');
  });

  test.each(['endpoint', 'legacy-endpoint', 'upstream-port', 'root-complex-endpoint'] as const)(
    'a %s needs it only beside other functions',
    (pcie) => {
      expect(kind({ pcie })).toBe('none');
      expect(kind({ pcie, multifunction: true })).toBe('no-capability');
      expect(kind({ pcie, multifunction: true, acs: ACS_ON })).toBe('none');
    },
  );

  test.each([null, 'pcie-to-pci-bridge', 'pci-to-pcie-bridge', 'root-complex-event-collector'] as const)(
    '%s never has it',
    (pcie) => {
      expect(kind({ pcie, acs: ACS_ON })).toBe('conventional');
    },
  );
});
