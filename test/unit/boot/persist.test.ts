/** --persist and `wish`: what is kept, what is refused before anything moves, and that no other file is ever edited. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { bindAndKeep, createVfsAndKeep, removeVfsAndKeep, unbindAndKeep } from '../../../src/actions/persist.ts';
import { addWishes, checkWishes, listWishes, type NewWish, removeWishes } from '../../../src/actions/wish.ts';
import type { Guard } from '../../../src/binding/guards.ts';
import { HostdevError } from '../../../src/errors.ts';
import { type SimulatedHost, simulatedHost } from '../../mock/hosts.ts';
import { EVER } from '../../patience.ts';

const PF = '0000:21:00.0';
const VF0 = '0000:21:10.0';
const VF2 = '0000:21:10.4';
const NIC = '0000:26:02.0';
const NVME = '0000:22:00.0';

let sim: SimulatedHost;
beforeEach(() => {
  sim = simulatedHost();
});
afterEach(() => sim.remove());

const options = (...allowed: Guard[]) => ({ deadlineMs: EVER, dryRun: false, allowed: new Set(allowed) });
const dry = { ...options(), dryRun: true };
const path = (name: string): string => join(sim.host.root, 'etc/hostdev', name);
const kept = (): string =>
  existsSync(path('conf.d/90-kept.toml')) ? readFileSync(path('conf.d/90-kept.toml'), 'utf8') : '';
const VFIO: NewWish = { driver: 'vfio', group: false, vfs: null };

function file(name: string, text: string): void {
  mkdirSync(dirname(path(name)), { recursive: true });
  writeFileSync(path(name), text);
}

async function codeOf(act: Promise<unknown>): Promise<string> {
  try {
    await act;
    return 'done';
  } catch (e) {
    if (!(e instanceof HostdevError)) throw e;
    return `${e.code} ${e.exit}`;
  }
}

describe('bind and unbind', () => {
  test('bind keeps, unbind takes out; where nothing is kept the host driver is wished', async () => {
    const bound = await bindAndKeep(sim.host, [NVME], null, options());
    expect(bound).toMatchObject({
      changed: true,
      kept: { added: [{ wished_address: NVME, driver: 'vfio' }], removed: [] },
    });
    expect(kept()).toContain(
      `address = "${NVME}"\npath = "pci0000:22/00.0"\nvendor_id = "1b36"\nproduct_id = "0010"\n`,
    );
    expect((await listWishes(sim.host)).wishes).toMatchObject([
      { address: NVME, driver_now: 'vfio-pci', met: true, reason: null },
    ]);
    await unbindAndKeep(sim.host, [NVME], false, options());
    expect(kept()).toBe('');
    await unbindAndKeep(sim.host, [NVME], true, options());
    expect(kept()).toContain('driver = "host"');
    const before = kept();
    const { kept: again } = await unbindAndKeep(sim.host, [NVME], true, options());
    expect(again).toMatchObject({ added: [], removed: [], already: [{ driver: 'host' }] });
    expect(kept()).toBe(before);
    await bindAndKeep(sim.host, [NVME], 'vfio-pci', options());
    expect(kept().match(/\[\[device\]\]/g)).toHaveLength(1);
    expect(kept()).toContain('driver = "vfio-pci"');
  });

  test('whole groups, allowances', async () => {
    await bindAndKeep(sim.host, [NIC], null, options('network'), true);
    expect(kept()).toContain('group = "endpoints"\nallow = ["network"]\n');
    expect((await listWishes(sim.host)).wishes).toMatchObject([{ met: true }]);
    Object.assign(sim.kernel.devices.get('0000:26:01.0') ?? {}, { driver: 'e1000' });
    expect((await listWishes(sim.host)).wishes).toMatchObject([
      { met: false, reason: '0000:26:01.0 of its group is on e1000, and no VFIO driver' },
    ]);
  });

  test('a VF by its PF and its number; that nobody makes it is said', async () => {
    const { warnings } = await bindAndKeep(sim.host, [VF2], null, options());
    expect(kept()).toContain(
      `address = "${VF2}"\nvf = 2\npath = "pci0000:21/00.0"\nvendor_id = "8086"\nproduct_id = "10c9"\n`,
    );
    expect(warnings).toMatchObject([{ id: 'wish', address: PF }]);
  });

  test('a dry run says what would be kept, and keeps nothing', async () => {
    const { kept: would } = await bindAndKeep(sim.host, [NVME], null, dry);
    expect(would.added).toHaveLength(1);
    expect(existsSync(path('conf.d'))).toBe(false);
    expect(sim.kernel.writes).toEqual([]);
  });

  test('a bind that fails keeps nothing', async () => {
    sim.kernel.fault = (p) => (p.endsWith('drivers_probe') ? 'ENODEV' : null);
    expect(await codeOf(bindAndKeep(sim.host, [NVME], null, options()))).toMatch(/HOSTDEV_BIND_FAILED|HOSTDEV_UNDO/);
    expect(kept()).toBe('');
  });

  test('nothing tells the device: refused before anything moves', async () => {
    const readLink = sim.kernel.readLink.bind(sim.kernel);
    sim.kernel.readLink = (root, p) =>
      p === `sys/bus/pci/devices/${NVME}` ? '../../../devices/platform/x' : readLink(root, p);
    expect(await codeOf(bindAndKeep(sim.host, [NVME], null, options()))).toBe('HOSTDEV_NO_IDENTITY 5');
    expect(await codeOf(addWishes(sim.host, [NVME], VFIO, options()))).toBe('HOSTDEV_NO_IDENTITY 5');
    expect(sim.kernel.writes).toEqual([]);
  });
});

describe('what others have written', () => {
  const WISH = `[[device]]\naddress = "${NVME}"\npath = "pci0000:22/00.0"\nvendor_id = "1b36"\nproduct_id = "0010"\ndriver = "vfio"\n`;

  test('the same wish is named, and nothing is written', async () => {
    file('hostdev.toml', `# mine\n${WISH}`);
    const { kept: k } = await bindAndKeep(sim.host, [NVME], null, options());
    expect(k).toMatchObject({ added: [], removed: [], already: [{ file: path('hostdev.toml'), line: 2 }] });
    expect(kept()).toBe('');
  });

  test.each([
    ['unbind', () => unbindAndKeep(sim.host, [NVME], true, options())],
    ['bind', () => bindAndKeep(sim.host, [NVME], 'vfio-pci', options())],
    ['wish add', () => addWishes(sim.host, [NVME], { ...VFIO, driver: 'none' }, options())],
    ['wish remove', () => removeWishes(sim.host, [NVME], options())],
  ])('another wish: %s is refused with file and line, and nothing moves', async (_, act) => {
    file('conf.d/a.toml', `# mine\n\n${WISH}`);
    await expect(act()).rejects.toThrow(`${path('conf.d/a.toml')}:3 (device[0]) wishes vfio`);
    expect(await codeOf(act())).toBe('HOSTDEV_WISH_ELSEWHERE 5');
    expect([sim.kernel.writes, kept(), readFileSync(path('conf.d/a.toml'), 'utf8')]).toEqual([
      [],
      '',
      `# mine\n\n${WISH}`,
    ]);
  });

  test('a kept file that a person broke: refused with its line, nothing moves', async () => {
    file('conf.d/90-kept.toml', `${WISH}x = \n`);
    expect(await codeOf(bindAndKeep(sim.host, [NVME], null, options()))).toBe('HOSTDEV_CONFIG 3');
    await expect(bindAndKeep(sim.host, [NVME], null, options())).rejects.toThrow(/90-kept\.toml:\d/);
    expect(sim.kernel.writes).toEqual([]);
  });

  test('a wish of the card that was in the slot before is replaced', async () => {
    file('conf.d/90-kept.toml', WISH.replace('0010', '0011'));
    await bindAndKeep(sim.host, [NVME], null, options());
    expect(kept().match(/\[\[device\]\]/g)).toHaveLength(1);
    expect(kept()).toContain('product_id = "0010"');
  });
});

describe('VFs', () => {
  test('vf create keeps the number, vf remove takes it out', async () => {
    await removeVfsAndKeep(sim.host, PF, options());
    expect(kept()).toBe('');
    await createVfsAndKeep(sim.host, PF, 3, 'netdev', options());
    expect(kept()).toContain('vfs = 3\nfor = "netdev"\n');
    expect((await listWishes(sim.host)).wishes).toMatchObject([{ kind: 'pf', address: PF, vfs: 3, met: true }]);
    await createVfsAndKeep(sim.host, PF, 3, 'vfio', options());
    expect((await listWishes(sim.host)).wishes).toMatchObject([{ for: 'vfio', met: false }]);
    await removeVfsAndKeep(sim.host, PF, options());
    expect(kept()).toBe('');
  });

  test('what is no PF is refused as without --persist', async () => {
    expect(await codeOf(createVfsAndKeep(sim.host, NVME, 2, 'vfio', options()))).toBe('HOSTDEV_NO_SRIOV 3');
    expect(await codeOf(addWishes(sim.host, [NVME], { ...VFIO, vfs: { count: 2, for: 'vfio' } }, options()))).toBe(
      'HOSTDEV_NO_SRIOV 3',
    );
    expect(await codeOf(addWishes(sim.host, [PF], { ...VFIO, vfs: { count: 8, for: 'vfio' } }, options()))).toBe(
      'HOSTDEV_VF_COUNT 3',
    );
  });
});

describe('wish', () => {
  test('add moves nothing; remove by any name; a card that is gone by its address', async () => {
    await addWishes(sim.host, [NVME, NIC], VFIO, options());
    expect(sim.kernel.writes).toEqual([]);
    expect((await listWishes(sim.host)).wishes.map((w) => [w.address, w.met])).toEqual([
      [NVME, false],
      [NIC, false],
    ]);
    expect((await checkWishes(sim.host, options())).wishes.map((w) => w.refused)).toEqual([false, false]);
    await removeWishes(sim.host, ['8086:100e'], options());
    sim.kernel.devices.delete(NVME);
    expect((await checkWishes(sim.host, options())).wishes).toMatchObject([
      { address: null, refused: true, reason: expect.stringContaining('no device is in its slot') },
    ]);
    await removeWishes(sim.host, [NVME], options());
    expect(kept()).toBe('');
    expect(await codeOf(removeWishes(sim.host, [NIC], options()))).toBe('HOSTDEV_WISH_ABSENT 4');
    expect(await codeOf(removeWishes(sim.host, ['0000:99:00.0'], options()))).toBe('HOSTDEV_WISH_ABSENT 4');
  });

  test('what the host stands on is refused, all of them or none; allowed by name, it is kept with that name', async () => {
    sim.kernel.files.set('proc/self/mountinfo', '21 1 259:1 / / rw - ext4 /dev/nvme0n1 rw\n');
    sim.kernel.links.set('sys/class/block/nvme0n1', `../../devices/pci0000:22/${NVME}/nvme/nvme0/nvme0n1`);
    sim.kernel.files.set('sys/class/block/nvme0n1/dev', '259:1\n');
    expect(await codeOf(addWishes(sim.host, [NIC, NVME], VFIO, options()))).toBe('HOSTDEV_GUARD 5');
    expect(kept()).toBe('');
    expect(await codeOf(addWishes(sim.host, [NVME], { ...VFIO, driver: 'host' }, options()))).toBe('done');
    await removeWishes(sim.host, [NVME], options());
    await addWishes(sim.host, [NVME], VFIO, options('disk'));
    expect(kept()).toContain('allow = ["disk"]');
    expect((await checkWishes(sim.host, options())).wishes).toMatchObject([{ refused: false }]);
    file('conf.d/90-kept.toml', kept().replace('allow = ["disk"]\n', ''));
    expect((await checkWishes(sim.host, options())).wishes).toMatchObject([
      { refused: true, reason: expect.stringContaining('mounted') },
    ]);
  });

  test('add --spec: a wish for each device that a device_spec takes now', async () => {
    file('hostdev.toml', '[[device_spec]]\nproduct_id = "10ca"\n[[device_spec]]\naddress = "0000:22:00.0"\n');
    const { kept: k } = await addWishes(sim.host, null, VFIO, options());
    expect(k.added.map((w) => [w.wished_address, w.vf])).toEqual([
      [VF0, 0],
      ['0000:21:10.2', 1],
      [VF2, 2],
      ['0000:21:10.6', 3],
      [NVME, null],
    ]);
    expect((await addWishes(sim.host, null, VFIO, options())).kept.already).toHaveLength(5);
    expect(kept().match(/\[\[device\]\]/g)).toHaveLength(5);
  });

  test('a mistake in one file keeps no other wish, and is told', async () => {
    await addWishes(sim.host, [NVME], VFIO, options());
    file('hostdev.toml', '[[device]\n');
    const { wishes, mistakes } = await listWishes(sim.host);
    expect(wishes).toHaveLength(1);
    expect(mistakes).toMatchObject([{ file: path('hostdev.toml'), line: 2 }]);
  });
});
