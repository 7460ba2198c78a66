import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  canonicalAddress,
  compareAddresses,
  formatAddress,
  nodedevName,
  parseAddress,
} from '../../../src/pci/address.ts';

const addresses = fc.record({
  domain: fc.oneof(fc.integer({ min: 0, max: 0xffff }), fc.integer({ min: 0, max: 0xffffffff })),
  bus: fc.integer({ min: 0, max: 0xff }),
  slot: fc.integer({ min: 0, max: 0x1f }),
  func: fc.integer({ min: 0, max: 7 }),
});

describe('parseAddress', () => {
  test.each([
    ['0000:01:00.0', '0000:01:00.0'],
    ['01:00.0', '0000:01:00.0'],
    ['pci_0000_01_00_0', '0000:01:00.0'],
    ['0000:AF:1F.7', '0000:af:1f.7'],
    ['pci_10000_E1_1F_7', '10000:e1:1f.7'],
    ['ffffffff:ff:1f.7', 'ffffffff:ff:1f.7'],
    ['00000001:00:00.0', '0001:00:00.0'],
  ])('%s is %s', (text, canonical) => {
    expect(canonicalAddress(text)).toBe(canonical);
  });

  test.each([
    '',
    '1:0.0',
    '000:01:00.0',
    '0000:01:20.0',
    '0000:01:00.8',
    '0000:01:00',
    '0000:01:00.00',
    ' 0000:01:00.0',
    '0000:01:00.0 ',
    '0000:01:00.0\n',
    '100000000:01:00.0',
    'pci_01_00_0',
    '0000_01_00_0',
    'pci-0000:01:00.0',
    '0000:0g:00.0',
    '..:..',
    '٠٠:00.0',
    '0'.repeat(1e6),
  ])('%j is none', (text) => {
    expect(parseAddress(text)).toBeNull();
  });

  test('every address survives all spellings', () => {
    fc.assert(
      fc.property(addresses, (p) => {
        const text = formatAddress(p);
        expect(text).toMatch(/^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/);
        expect(parseAddress(text)).toEqual(p);
        expect(parseAddress(text.toUpperCase())).toEqual(p);
        expect(parseAddress(nodedevName(text))).toEqual(p);
      }),
    );
  });

  test('what is accepted is an address of the same digits', () => {
    const near = fc.stringMatching(/^(?:[0-9a-fA-F:._ pci]{0,22})$/);
    fc.assert(
      fc.property(near, (text) => {
        const canonical = canonicalAddress(text);
        if (canonical !== null) expect(canonicalAddress(canonical)).toBe(canonical);
      }),
    );
  });
});

describe('compareAddresses', () => {
  test('orders by number, not by text', () => {
    const sorted = ['0000:02:00.0', '0000:02:00.1', '0000:10:00.0', '2000:00:00.0', '10000:00:00.0'];
    expect([...sorted].reverse().sort(compareAddresses)).toEqual(sorted);
  });

  test('puts what is no address last', () => {
    expect(['zz', '0000:01:00.0', 'aa'].sort(compareAddresses)).toEqual(['0000:01:00.0', 'aa', 'zz']);
  });

  test('is a total order that agrees with the numbers', () => {
    const value = (p: { domain: number; bus: number; slot: number; func: number }) =>
      p.domain * 65536 + p.bus * 256 + p.slot * 8 + p.func;
    fc.assert(
      fc.property(addresses, addresses, (a, b) => {
        const order = Math.sign(compareAddresses(formatAddress(a), formatAddress(b)));
        expect(order).toBe(Math.sign(value(a) - value(b)));
      }),
    );
  });
});
