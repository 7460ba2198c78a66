/** Bus numbers shift, cards move, go, and others come: a wish is for its card, not for an address. */
import { beforeAll, expect, test } from 'vitest';
import { EVER } from '../../patience.ts';
import { skipped } from '../suite.ts';
import { allMet, drivers, type Told, told, useBed } from './suite.ts';
import { USUAL } from './topology.ts';

const bed = useBed('amd');

const IGB = '0000:21:00.0';
const E1000E = '0000:23:00.0';
const EDU = '0000:24:00.0';
const PF = '0000:92:00.0';
const VFIO = 'vfio-pci';

beforeAll(async () => {
  if (skipped) return;
  // An edu shows no number of its own: path and ids are all that tell it. The others show a MAC.
  await bed().vm.ok(
    `set -e
    hostdev bind ${IGB} --persist
    hostdev bind ${E1000E} --persist
    hostdev bind ${EDU} --persist
    hostdev vf create ${PF} --count 1 --persist
    grep -q '^mac = "52:54:00:7b:10:00"' /etc/hostdev/conf.d/90-kept.toml`,
    { timeoutMs: EVER },
  );
});

const of = (wishes: readonly Told[], address: string) => wishes.find((w) => w.wished_address === address);

test('the same cards at new addresses are bound, and their twins at the old ones are not', async () => {
  // A port more in front: what was bus 21 is bus 22, at the unchanged path. Behind it is a twin of the igb, and where
  // the edu was is one of its ids.
  await bed().reboot({
    layout: {
      ...USUAL,
      front: { kind: 'igb', n: 2 },
      a2: { kind: 'edu', n: 2 },
      // The e1000e: another slot, and another card.
      a5: { kind: 'e1000e', n: 5 },
    },
  });
  const paths = await bed().vm.ok('cd /sys/bus/pci/devices; readlink 0000:22:00.0 0000:25:00.0');
  expect(paths).toContain('pci0000:20/0000:20:04.0/0000:22:00.0');
  expect(paths).toContain('pci0000:20/0000:20:07.0/0000:25:00.0');
  expect(await drivers(bed(), ['0000:22:00.0', '0000:25:00.0', '0000:92:10.0'])).toEqual({
    '0000:22:00.0': VFIO,
    '0000:25:00.0': VFIO,
    '0000:92:10.0': 'tb_igbvf_vfio_pci',
  });
  // The twins, and the card that is another one in another slot.
  expect(await drivers(bed(), [IGB, EDU, '0000:28:00.0'])).toEqual({
    [IGB]: 'igb',
    [EDU]: '-',
    '0000:28:00.0': 'e1000e',
  });
  const wishes = await told(bed());
  expect(wishes.map((w) => [w.wished_address, w.address, w.met])).toEqual(
    expect.arrayContaining([
      [IGB, '0000:22:00.0', true],
      [EDU, '0000:25:00.0', true],
      [E1000E, null, false],
      [PF, PF, true],
    ]),
  );
  expect(of(wishes, E1000E)?.reason).toMatch(
    /another device is in its slot .*: 0000:24:00\.0 is 1234:11e8.*left alone/,
  );
});

test('a card taken out, another in its slot, one in a new slot that its number tells', async () => {
  await bed().reboot({
    layout: { ...USUAL, a0: null, a2: null, a3: { kind: 'e1000e', n: 6 }, a5: { kind: 'e1000e', n: 0 } },
  });
  const wishes = await told(bed());
  expect(of(wishes, IGB)).toMatchObject({ address: null, met: false });
  expect(of(wishes, IGB)?.reason).toContain('no device is in its slot (pci0000:20/04.0/00.0)');
  expect(of(wishes, EDU)).toMatchObject({ address: null, met: false });
  expect(of(wishes, EDU)?.reason).toMatch(/another device is in its slot .*left alone/);
  expect(of(wishes, E1000E)).toMatchObject({ address: '0000:27:00.0', met: true });
  expect(await drivers(bed(), ['0000:24:00.0', '0000:27:00.0'])).toEqual({
    '0000:24:00.0': 'e1000e',
    '0000:27:00.0': VFIO,
  });
  expect((await bed().vm.sh('hostdev boot status')).code).toBe(3);
});

test('another card of the same ids in its slot: told by its number, and left alone', async () => {
  await bed().reboot({ layout: { ...USUAL, a0: { kind: 'igb', n: 3 } } });
  const wishes = await told(bed());
  expect(of(wishes, IGB)).toMatchObject({ address: null, met: false });
  expect(of(wishes, IGB)?.reason).toContain('the MAC address of 0000:21:00.0 is 52:54:00:7b:10:03');
  expect(await drivers(bed(), [IGB])).toEqual({ [IGB]: 'igb' });
});

test('all cards back where they were: all bound', async () => {
  await bed().reboot({ layout: USUAL });
  expect((await allMet(bed())).filter((w) => !w.met)).toEqual([]);
  expect(await drivers(bed(), [IGB, E1000E, EDU])).toEqual({ [IGB]: VFIO, [E1000E]: VFIO, [EDU]: VFIO });
});
