/**
 * `boot apply` on the kernel in memory: what is wished comes about, once; what cannot is told; others' work is left to
 * them.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Applied, type ApplyScope, applyWishes } from '../../../src/actions/bootApply.ts';
import { readBootStatus } from '../../../src/actions/bootStatus.ts';
import { unbindDevices } from '../../../src/actions/unbind.ts';
import { addWishes } from '../../../src/actions/wish.ts';
import { readBinding } from '../../../src/binding/books.ts';
import { DRIVERS, type SimulatedHost, SMALL_HOST, simulatedHost } from '../../mock/hosts.ts';
import { EVER } from '../../patience.ts';

const PF = '0000:21:00.0';
const VF0 = '0000:21:10.0';
const VF1 = '0000:21:10.2';
const NIC = '0000:26:02.0';
const EDU = '0000:26:01.0';
const NVME = '0000:22:00.0';

/** As a machine is after a boot: no VFs. */
const BOOTED = SMALL_HOST.filter((d) => d.physfn === undefined);

let sim: SimulatedHost;
beforeEach(() => {
  sim = simulatedHost(BOOTED);
  sim.kernel.files.set('proc/sys/kernel/random/boot_id', '0f0e0d0c-0b0a-4e20-8b29-1e85f123c67e\n');
});
afterEach(() => sim.remove());

const options = { deadlineMs: EVER, dryRun: false, allowed: new Set<never>() };
const apply = (scope: Partial<ApplyScope> = {}): Promise<Applied> =>
  applyWishes(sim.host, { only: null, stage: 'apply', ...scope }, options);

function file(name: string, text: string): void {
  const at = join(sim.host.root, name);
  mkdirSync(dirname(at), { recursive: true });
  writeFileSync(at, text);
  // Files of an admin's are read through the kernel's tree too.
  if (!name.startsWith('etc/hostdev')) sim.kernel.files.set(name, text);
}

const ids: Record<string, string> = { [PF]: '8086:10c9', [NIC]: '8086:100e', [EDU]: '1234:11e8', [NVME]: '1b36:0010' };
const identity = (address: string): string => {
  const [vendor, product] = (ids[address] ?? '').split(':');
  return `address = "${address}"\npath = "pci${address.slice(0, 7)}/${address.slice(8)}"\nvendor_id = "${vendor}"\nproduct_id = "${product}"\n`;
};
const device = (address: string, more = 'driver = "vfio"'): string => `[[device]]\n${identity(address)}${more}\n`;
const pf = (more = 'vfs = 2'): string => `[[pf]]\n${identity(PF)}${more}\n`;
const wish = (...tables: string[]): void => file('etc/hostdev/hostdev.toml', tables.join(''));

const driver = (address: string): string | null | undefined => sim.kernel.devices.get(address)?.driver;
const states = (a: Pick<Applied, 'wishes'>): string[] =>
  a.wishes.map((w) => `${w.address ?? '-'} ${w.met ? `met ${w.stage}` : `not met: ${w.reason}`}`);

describe('what is wished comes about', () => {
  test('a device, a group, VFs, a VF of its own kind; the books are the boot’s', async () => {
    wish(
      device(NVME),
      device(NIC, 'driver = "vfio"\ngroup = "endpoints"'),
      pf('vfs = 3'),
      device(PF, 'vf = 1\ndriver = "host"').replace(PF, VF1),
    );
    const applied = await apply();
    expect(states(applied)).toEqual([`${PF} met apply`, `${NVME} met apply`, `${NIC} met apply`, `${VF1} met apply`]);
    expect([NVME, NIC, EDU, VF0, VF1].map(driver)).toEqual([
      'vfio-pci',
      'vfio-pci',
      'vfio-pci',
      'tb_igbvf_vfio_pci',
      'igbvf',
    ]);
    expect(applied.changed).toBe(true);
    for (const a of [NVME, NIC, EDU, VF0])
      expect(readBinding(sim.host, a)?.holds.map((h) => h.owner)).toEqual(['boot']);
  });

  test('a second pass writes nothing, and keeps who met what and when', async () => {
    wish(device(NVME), pf('vfs = 2\n[[pf.range]]\nvfs = "0"\ndriver = "host"'), device(NIC, 'driver = "none"'));
    const first = await apply();
    expect(states(first)).toEqual([`${PF} met apply`, `${NVME} met apply`, `${NIC} met apply`]);
    expect([VF0, VF1, NIC].map(driver)).toEqual(['igbvf', 'tb_igbvf_vfio_pci', null]);
    const writes = sim.kernel.writes.length;
    const second = await apply();
    expect(sim.kernel.writes.length).toBe(writes);
    expect([second.changed, second.wishes]).toEqual([false, first.wishes]);
    expect((await readBootStatus(sim.host)).wishes).toEqual(first.wishes);
  });

  test('what no driver shall have is not claimed by a probe later, and unbind brings it back', async () => {
    wish(device(NIC, 'driver = "none"'));
    await apply();
    sim.kernel.probe(NIC);
    expect(driver(NIC)).toBeNull();
    await unbindDevices(sim.host, [NIC], false, options);
    expect([driver(NIC), sim.kernel.devices.get(NIC)?.override]).toEqual(['e1000', null]);
  });

  test('what is so before is left as it is, and is nobody of ours', async () => {
    Object.assign(sim.kernel.devices.get(NVME) ?? {}, { driver: 'vfio-pci', override: 'vfio-pci' });
    Object.assign(sim.kernel.drivers.get('vfio-pci') ?? {}, { loaded: true });
    wish(device(NVME));
    expect(states(await apply())).toEqual([`${NVME} met before`]);
    expect([sim.kernel.writes, readBinding(sim.host, NVME)]).toEqual([[], null]);
  });

  test('for the host: taken off VFIO, whoever had put it there', async () => {
    Object.assign(sim.kernel.devices.get(NVME) ?? {}, { driver: 'vfio-pci', override: 'vfio-pci' });
    Object.assign(sim.kernel.drivers.get('vfio-pci') ?? {}, { loaded: true });
    wish(device(NVME, 'driver = "host"'));
    expect(states(await apply())).toEqual([`${NVME} met apply`]);
    expect(driver(NVME)).toBe('nvme');
  });

  test('VFs are made with autoprobe off: the host driver never meets those for VFIO', async () => {
    wish(pf('vfs = 2'));
    await apply();
    const at = (what: string): number => sim.kernel.writes.findIndex((w) => w.includes(what));
    expect(at('sriov_drivers_autoprobe=0')).toBeGreaterThanOrEqual(0);
    expect(at('sriov_drivers_autoprobe=0')).toBeLessThan(at('sriov_numvfs=2'));
    expect(sim.kernel.writes.some((w) => w.includes('igbvf/unbind'))).toBe(false);
  });
});

describe('a PF whose driver came again, and what is plugged in later', () => {
  test('only its own wishes, and its VFs are as wished', async () => {
    wish(pf('vfs = 2'), device(NVME), device(PF, 'vf = 0\ndriver = "host"').replace(PF, VF0));
    await apply();
    for (const a of [VF0, VF1]) sim.kernel.devices.delete(a);
    rmSync(join(sim.host.root, 'run/hostdev/bindings'), { recursive: true });
    Object.assign(sim.kernel.devices.get(NVME) ?? {}, { driver: 'nvme', override: null });
    const again = await apply({ only: PF, stage: 'pf' });
    expect(states(again)).toEqual([
      `${PF} met pf`,
      expect.stringContaining(`${NVME} not met: is on nvme`),
      `${VF0} met pf`,
    ]);
    expect([VF0, VF1, NVME].map(driver)).toEqual(['igbvf', 'tb_igbvf_vfio_pci', 'nvme']);
    expect(states(await apply({ only: NVME, stage: 'added' }))).toEqual([
      `${PF} met pf`,
      `${NVME} met added`,
      `${VF0} met pf`,
    ]);
  });

  test('a PF that an admin gave back by hand stays with its driver, although a wish has it on VFIO at the boot', async () => {
    wish(device(PF));
    await apply();
    await unbindDevices(sim.host, [PF], false, options);
    expect(states(await apply({ only: PF, stage: 'pf' }))).toEqual([expect.stringContaining('not met: is on igb')]);
    expect(states(await apply({ only: PF, stage: 'added' }))).toEqual([`${PF} met added`]);
  });

  test('a device that is no address is no scope', async () => {
    await expect(apply({ only: '../x' })).rejects.toThrow('an address such as');
  });
});

describe('what cannot be is told, and the rest goes on', () => {
  test('another card in the slot, a card taken out, a guard, a count that it cannot have', async () => {
    sim.kernel.files.set('proc/self/mountinfo', '21 1 259:1 / / rw - ext4 /dev/nvme0n1 rw\n');
    sim.kernel.links.set('sys/class/block/nvme0n1', `../../devices/pci0000:22/${NVME}/nvme/nvme0/nvme0n1`);
    sim.kernel.files.set('sys/class/block/nvme0n1/dev', '259:1\n');
    wish(
      device(NVME),
      device(EDU).replace('11e8', '11e9'),
      device(NIC).replace('pci0000:26/02.0', 'pci0000:26/03.0'),
      pf('vfs = 200'),
    );
    file('etc/hostdev/conf.d/good.toml', device(NIC));
    const applied = await apply();
    expect(states(applied)).toEqual([
      `${PF} not met: ${PF} can have 7 VFs (sriov_totalvfs), not 200`,
      expect.stringMatching(new RegExp(`^${NVME} not met: .*mounted`)),
      expect.stringContaining('- not met: another device is in its slot'),
      expect.stringContaining('- not met: no device is in its slot'),
      `${NIC} met apply`,
    ]);
    expect([NVME, EDU, NIC].map(driver)).toEqual(['nvme', null, 'vfio-pci']);
    expect(states(await readBootStatus(sim.host))).toEqual(states(applied));
  });

  test('broken files of every kind: named with file and line, the rest applied', async () => {
    for (const [bad, line] of [
      ['[[device]\n', true],
      [`${device(NVME)}drivr = 1\n`, true],
      [`#${'x'.repeat(1024 * 1024)}\n${device(NVME)}`, false],
    ] as const) {
      wish(bad);
      file('etc/hostdev/conf.d/b.toml', device(NIC));
      const { mistakes, wishes } = await apply();
      expect(mistakes).toMatchObject([{ file: expect.stringContaining('hostdev.toml') }]);
      if (line) expect(mistakes[0]?.line).toBeGreaterThan(0);
      expect(wishes).toMatchObject([{ address: NIC, met: true }]);
    }
    rmSync(join(sim.host.root, 'etc/hostdev/hostdev.toml'));
    mkdirSync(join(sim.host.root, 'etc/hostdev/hostdev.toml'));
    const { mistakes, wishes } = await apply();
    expect(mistakes).toMatchObject([{ message: expect.stringContaining('cannot be read') }]);
    expect(wishes).toMatchObject([{ met: true }]);
  });

  test('a write that fails: that group is as it was, the next is done', async () => {
    sim.kernel.fault = (p, value) => (p.endsWith('drivers_probe') && value.trim() === NVME ? 'EIO' : null);
    wish(device(NVME), device(NIC));
    expect(states(await apply())).toEqual([expect.stringContaining(`${NVME} not met:`), `${NIC} met apply`]);
  });

  test('no wishes, no configuration at all', async () => {
    expect(await apply()).toMatchObject({ wishes: [], changed: false });
    expect(sim.kernel.writes).toEqual([]);
  });

  test('hostdev.off=1 on the kernel line: nothing is done, and it is said', async () => {
    sim.kernel.files.set('proc/cmdline', 'root=/dev/sda1 hostdev.off=1 quiet\n');
    wish(device(NVME), pf());
    const applied = await apply();
    expect(applied).toMatchObject({ off: true, changed: false });
    expect(applied.wishes.every((w) => !w.met && w.reason?.startsWith('hostdev.off=1'))).toBe(true);
    expect(sim.kernel.writes).toEqual([]);
    expect((await readBootStatus(sim.host)).off).toBe(true);
    sim.kernel.files.set('proc/cmdline', 'nohostdev.off=1 hostdev.off=10\n');
    expect((await apply()).changed).toBe(true);
  });
});

describe('a dry run', () => {
  const dry = (scope: Partial<ApplyScope> = {}): Promise<Applied> =>
    applyWishes(sim.host, { only: null, stage: 'apply', ...scope }, { ...options, dryRun: true });
  const vf = (n: number, address: string, more: string): string =>
    device(PF, `vf = ${n}\n${more}`).replace(`address = "${PF}"`, `address = "${address}"`);

  test('foretells what is wished of VFs that are not there yet, as the real run then has it', async () => {
    wish(
      pf('vfs = 2'),
      vf(0, VF0, 'driver = "host"'),
      vf(1, VF1, 'driver = "vfio-pci"'),
      vf(2, VF1, 'driver = "vfio"'),
    );
    const told = states(await dry());
    expect(told).toEqual([
      `${PF} met apply`,
      `${VF0} met apply`,
      `${VF1} met apply`,
      `- not met: ${PF} has no VF 2 (${VF1})`,
    ]);
    expect(sim.kernel.writes).toEqual([]);
    expect(existsSync(join(sim.host.root, 'run/hostdev/boot.json'))).toBe(false);
    expect(states(await dry({ only: PF, stage: 'pf' })).slice(0, 3)).toEqual([
      `${PF} met pf`,
      `${VF0} met pf`,
      `${VF1} met pf`,
    ]);
    expect(states(await apply())).toEqual(told);
  });

  test('VFs that cannot be made, or are not wished: nothing of them is foretold', async () => {
    wish(pf('vfs = 200'), vf(0, VF0, 'driver = "host"'));
    expect(states(await dry())[1]).toBe(`- not met: ${PF} has no VF 0 (${VF0})`);
    wish(vf(0, VF0, 'driver = "host"'));
    expect(states(await dry())).toEqual([`- not met: ${PF} has no VF 0 (${VF0})`]);
  });

  test('where a VF would be cannot be told: met all the same, at no address', async () => {
    Object.assign(sim.kernel.devices.get(PF) ?? {}, { attributes: { sriov_offset: '0\n' } });
    wish(pf('vfs = 2'), vf(0, VF0, 'driver = "host"'));
    expect(states(await dry())).toEqual([`${PF} met apply`, '- met apply']);
  });

  test('a driver that is not there refuses, of a range and of a VF', async () => {
    Object.defineProperty(sim.kernel, 'loadModule', { value: undefined });
    for (const wishes of [
      pf('vfs = 2\nfor = "netdev"\n[[pf.range]]\nvfs = "1"\ndriver = "no-vfio-pci"'),
      pf('vfs = 2\nfor = "netdev"') + vf(1, VF1, 'driver = "no-vfio-pci"'),
    ]) {
      wish(wishes);
      expect((await dry()).wishes.filter((w) => !w.met)).toMatchObject([
        { reason: expect.stringContaining('no_vfio_pci is not loaded') },
      ]);
    }
  });
});

describe("the host's own NIC", () => {
  beforeEach(() => {
    const net = `sys/devices/pci0000:26/${NIC}/net/eth0`;
    sim.kernel.links.set('sys/class/net/eth0', `../../devices/pci0000:26/${NIC}/net/eth0`);
    for (const at of [net, 'sys/class/net/eth0', `sys/bus/pci/devices/${NIC}/net/eth0`])
      for (const [name, text] of Object.entries({ flags: '0x1003\n', operstate: 'up\n', ifindex: '2\n' }))
        sim.kernel.files.set(`${at}/${name}`, text);
  });

  test('with the default route: refused when the wish is made, and at the boot when the host has come to stand on it', async () => {
    wish(device(NIC));
    const header = 'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n';
    sim.kernel.files.set('proc/net/route', `${header}eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n`);
    const made = addWishes(sim.host, [NIC], { driver: 'vfio', group: false, vfs: null }, options);
    await expect(made).rejects.toMatchObject({
      code: 'HOSTDEV_GUARD',
      message: expect.stringContaining('default route'),
    });
    expect(states(await apply())).toEqual([expect.stringMatching(/not met: .*default route/)]);
    expect(driver(NIC)).toBe('e1000');
  });

  test('no route yet on the machine itself: one that is up is left alone, unless the wish says network', async () => {
    Object.defineProperty(sim.host, 'isReal', { value: true });
    const hurried = { ...options, deadlineMs: 1000 };
    wish(device(NIC));
    const reason = async () => (await applyWishes(sim.host, { only: null, stage: 'apply' }, hurried)).wishes[0]?.reason;
    expect(await reason()).toContain('the host has no default route yet, and its interface eth0 is up');
    wish(device(NIC, 'driver = "vfio"\nallow = ["network"]'));
    expect(`${await reason()}`).not.toContain('the host has no default route yet');
  });
});

test('the boot display: refused when the wish is made, and at the boot when a console has come to draw on it', async () => {
  Object.assign(sim.kernel.devices.get(EDU) ?? {}, {
    class: '030000',
    driver: 'e1000',
    attributes: { boot_vga: '1\n' },
  });
  const made = () =>
    addWishes(sim.host, [EDU], { driver: 'vfio', group: false, vfs: null }, { ...options, dryRun: true });
  sim.kernel.files.set('proc/iomem', '');
  const console = (bind: string): void => {
    sim.kernel.files.set('sys/class/vtconsole/vtcon1/name', '(M) frame buffer device\n');
    sim.kernel.files.set('sys/class/vtconsole/vtcon1/bind', `${bind}\n`);
  };
  console('0');
  wish(device(EDU));
  expect((await made()).kept.already).toHaveLength(1);
  console('1');
  await expect(made()).rejects.toMatchObject({
    code: 'HOSTDEV_GUARD',
    exit: 5,
    message: expect.stringContaining('it is the boot display, and vtcon1 draws the console on it'),
  });
  expect(states(await apply())).toEqual([expect.stringMatching(/not met: .*boot display, and vtcon1 draws/)]);
  expect(driver(EDU)).toBe('e1000');
  wish(device(EDU, 'driver = "vfio"\nallow = ["display"]'));
  expect(states(await apply())).toEqual([`${EDU} met apply`]);
});

describe('who else sets it', () => {
  beforeEach(() => {
    sim.kernel.files.set(`sys/bus/pci/devices/${PF}/net/eth4/address`, '52:54:00:00:00:01\n');
  });

  test.each([
    [
      'systemd by path',
      'etc/systemd/network/10-pf.link',
      `[Match]\nPath=pci-${PF}\n[Link]\nSR-IOVVirtualFunctions=4\n`,
      4,
    ],
    [
      'systemd by driver',
      'etc/systemd/network/10-pf.link',
      '[Match]\nDriver=ig?\n\n[Link]\nSR-IOVVirtualFunctions=4\n',
      5,
    ],
    [
      'systemd by MAC',
      'etc/systemd/network/10-pf.link',
      '[Match]\nPermanentMACAddress=52:54:00:00:00:01\n[Link]\nSR-IOVVirtualFunctions=4\n',
      4,
    ],
    [
      'NetworkManager',
      'etc/NetworkManager/system-connections/pf.nmconnection',
      '[connection]\nid=pf\ninterface-name=eth4\n[sriov]\ntotal-vfs=4\n',
      5,
    ],
    [
      'netplan',
      'etc/netplan/50.yaml',
      'network:\n  ethernets:\n    eth4:\n      dhcp4: false\n      virtual-function-count: 4\n',
      5,
    ],
    [
      'netplan by match',
      'etc/netplan/50.yaml',
      'network:\n  ethernets:\n    pf:\n      match:\n        macaddress: "52:54:00:00:00:01"\n      virtual-function-count: 4\n',
      6,
    ],
  ])('%s owns the number of VFs: named with its line, and not fought', async (_, name, text, line) => {
    file(name, text);
    wish(pf(), device(NVME));
    expect(states(await apply())).toEqual([
      expect.stringContaining(`${PF} not met: /${name}:${line} (`),
      `${NVME} met apply`,
    ]);
    expect(sim.kernel.writes.some((w) => w.includes('sriov_numvfs'))).toBe(false);
  });

  test.each([
    [
      'another PF',
      'etc/systemd/network/10-pf.link',
      '[Match]\nPath=pci-0000:99:00.0\n[Link]\nSR-IOVVirtualFunctions=4\n',
    ],
    ['all but it', 'etc/systemd/network/10-pf.link', '[Match]\nDriver=!igb\n[Link]\nSR-IOVVirtualFunctions=4\n'],
    ['a comment', 'etc/systemd/network/10-pf.link', `[Match]\nPath=pci-${PF}\n[Link]\n#SR-IOVVirtualFunctions=4\n`],
    [
      'another profile',
      'etc/NetworkManager/system-connections/x',
      '[connection]\ninterface-name=eth5\n[sriov]\ntotal-vfs=4\n',
    ],
    [
      'another interface',
      'etc/netplan/50.yaml',
      'network:\n  ethernets:\n    eth5:\n      virtual-function-count: 4\n    eth4: {}\n',
    ],
    ['noise', 'etc/netplan/50.yaml', `${' '.repeat(200)}virtual-function-count: 4\n`],
  ])('%s is no owner', async (_, name, text) => {
    file(name, text);
    wish(pf());
    expect(states(await apply())).toEqual([`${PF} met apply`]);
  });

  test('driverctl keeps a device', async () => {
    file(`etc/driverctl.d/pci-${NVME}`, 'uio_pci_generic\n');
    wish(device(NVME));
    expect(states(await apply())).toEqual([
      expect.stringContaining(
        `${NVME} not met: /etc/driverctl.d/pci-${NVME}:1 (driverctl) sets its driver to uio_pci_generic`,
      ),
    ]);
  });

  test('a PF that has another number already is left with its VFs', async () => {
    sim.remove();
    sim = simulatedHost(SMALL_HOST, DRIVERS);
    wish(pf('vfs = 2'));
    expect(states(await apply())).toEqual(
      [expect.stringContaining(`${PF} has 4 VFs, and 2 are to be had only by taking all of them away`)].map((m) =>
        expect.stringMatching((m as { sample?: string }).sample ?? 'has 4 VFs'),
      ),
    );
    expect(driver(VF0)).toBe('igbvf');
  });
});

describe('the report', () => {
  test('of another boot, or none of ours, is made anew', async () => {
    wish(device(NVME));
    const first = await apply();
    const at = join(sim.host.root, 'run/hostdev/boot.json');
    for (const text of [
      '{',
      '[]',
      '{"schema":2}',
      JSON.stringify({ ...first, boot: 'x' }),
      JSON.stringify({ ...first, wishes: [{ address: '../x' }] }),
    ]) {
      writeFileSync(at, text);
      expect(states(await readBootStatus(sim.host))).toEqual([`${NVME} met before`]);
      expect(states(await apply())).toEqual([`${NVME} met before`]);
      expect(JSON.parse(readFileSync(at, 'utf8'))).toMatchObject({ schema: 1, boot: sim.host.boot });
    }
  });

  test('a dry run says what would be met by whom, and writes nothing', async () => {
    wish(device(NVME));
    const would = await applyWishes(sim.host, { only: null, stage: 'apply' }, { ...options, dryRun: true });
    expect(states(would)).toEqual([`${NVME} met apply`]);
    expect([sim.kernel.writes, existsSync(join(sim.host.root, 'run/hostdev'))]).toEqual([[], false]);
  });
});
