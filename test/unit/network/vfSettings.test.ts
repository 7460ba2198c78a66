/**
 * What netlink tells of a PF's VFs, taken apart from bytes as rtnl_fill_vfinfo writes them; and nothing of what is cut
 * short or made up.
 */
import { readFileSync } from 'node:fs';
import { endianness } from 'node:os';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { loadNative } from '../../../src/addon/load.ts';
import { lostSettings, parseVfSettings, settingsText } from '../../../src/network/vfSettings.ts';
import { attribute, linkMessage, type MadeVf, numbers, vfInfo } from '../../mock/netlink.ts';

const PLAIN = {
  mac: null,
  vlan: 0,
  qos: 0,
  spoofchk: true,
  trust: false,
  link_state: 'auto',
  min_tx_rate: 0,
  max_tx_rate: 0,
};
const SET: MadeVf = { mac: '525400abcdef', vlan: [100, 3], spoofchk: 0, trust: 1, linkState: 2, rate: [10, 1000] };

test('each setting as the kernel says it, in order of the VFs', () => {
  expect(parseVfSettings(linkMessage([vfInfo(1, SET), vfInfo(0, {})]))).toEqual([
    { vf: 0, ...PLAIN },
    {
      vf: 1,
      mac: '52:54:00:ab:cd:ef',
      vlan: 100,
      qos: 3,
      spoofchk: false,
      trust: true,
      link_state: 'disable',
      min_tx_rate: 10,
      max_tx_rate: 1000,
    },
  ]);
});

test('what a driver does not tell is null; the older rate does where there is no newer', () => {
  const old = Buffer.concat([
    attribute(1, Buffer.concat([numbers(0), Buffer.alloc(32)])),
    attribute(3, numbers(0, 50)),
  ]);
  expect(parseVfSettings(linkMessage([attribute(1, old)]))).toMatchObject([
    { spoofchk: null, trust: null, link_state: null, max_tx_rate: 50 },
  ]);
  expect(parseVfSettings(linkMessage([vfInfo(0, { spoofchk: -1, trust: -1, linkState: 9 })]))).toMatchObject([
    { spoofchk: null, trust: null, link_state: null },
  ]);
});

test('an interface without VFs has none; InfiniBand has a longer address', () => {
  expect(parseVfSettings(linkMessage(null))).toEqual([]);
  expect(parseVfSettings(linkMessage([vfInfo(0, { mac: '80000048fe80000000000000e41d2d0300e77b21' })]))).toMatchObject([
    { mac: '80:00:00:48:fe:80:00:00:00:00:00:00:e4:1d:2d:03:00:e7:7b:21' },
  ]);
});

test('252 VFs: as many as the one attribute holds', () => {
  const all = Array.from({ length: 252 }, (_, n) => vfInfo(n, SET, 260));
  expect(parseVfSettings(linkMessage(all))).toHaveLength(252);
});

test('cut short, too long inside, or twice the same: not measured', () => {
  const whole = linkMessage([vfInfo(0, SET), vfInfo(1, {})]);
  for (let size = 0; size < whole.length; size += 1) expect(parseVfSettings(whole.subarray(0, size))).toBeNull();
  expect(parseVfSettings(linkMessage([vfInfo(0, {}), vfInfo(0, {})]))).toBeNull();
  expect(parseVfSettings(linkMessage([attribute(1, attribute(2, numbers(0, 5, 0)))]))).toBeNull();
  // Three VFs whose list says that it is shorter: what is behind it is read as attributes of the link, and is nonsense
  // or none.
  const wrapped = linkMessage([vfInfo(0, {}), vfInfo(1, {}), vfInfo(2, {})], 100);
  expect(parseVfSettings(wrapped)?.length ?? 0).not.toBe(3);
});

test('bytes that anybody made up raise nothing, and tell of no VF twice', () => {
  const seed = linkMessage([vfInfo(0, SET), vfInfo(1, {})]);
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(seed.length - 1), fc.nat(255)), { maxLength: 12 }), (changes) => {
      const bytes = Buffer.from(seed);
      for (const [at, to] of changes) bytes[at] = to;
      const found = parseVfSettings(bytes);
      expect(new Set(found?.map((s) => s.vf)).size).toBe(found?.length ?? 0);
    }),
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (b) => void parseVfSettings(Buffer.from(b))));
});

test('only what somebody may have set is told, VFs with the same together', () => {
  const settings = parseVfSettings(
    linkMessage([vfInfo(0, {}), vfInfo(1, SET), vfInfo(2, { trust: 1 }), vfInfo(3, { trust: 1 })]),
  );
  expect(settings?.map(settingsText)).toEqual([
    '',
    'MAC 52:54:00:ab:cd:ef, VLAN 100 qos 3, trust on, spoofchk off, link disable, min_tx_rate 10, max_tx_rate 1000',
    'trust on',
    'trust on',
  ]);
  const [line] = lostSettings('0000:21:00.0', { settings: settings ?? [] });
  expect(line).toMatch(/^0000:21:00\.0: .* VF 1: MAC 52:54.*; VF 2 3: trust on$/);
  expect(lostSettings('0000:21:00.0', { settings: [] })).toEqual([]);
  expect(lostSettings('0000:21:00.0', { unmeasured: 'EPERM' })).toEqual([expect.stringContaining('not known (EPERM)')]);
});

test('the kernel itself, of the loopback interface: whole, without VFs; ENODEV for an index that is none', async () => {
  expect(endianness()).toMatch(/LE|BE/);
  const writer = loadNative().openWriter('/');
  try {
    const index = Number(readFileSync('/sys/class/net/lo/ifindex', 'utf8'));
    const message = Buffer.from(await writer.link(index, 5000), 'latin1');
    expect(parseVfSettings(message)).toEqual([]);
    expect(message.includes('lo\0')).toBe(true);
    await expect(writer.link(2 ** 31 - 1, 5000)).rejects.toMatchObject({ code: 'ENODEV', syscall: 'RTM_GETLINK' });
    await expect(writer.link(0, 5000)).rejects.toMatchObject({ code: 'EINVAL' });
  } finally {
    writer.close();
  }
});
