/**
 * `attach` and `detach` on a real kernel, with a guest that lets go at once (a device hot-plugged into q35 without ACPI
 * PCI hot-plug and without a system) and one that does not (a device that was there at its start).
 */
import path from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { createVfs, defineDomain, driverOf, hostdevXml, installHostdev, onlineNvmeVf, virsh } from './guest.ts';
import { ensureImage } from './image.ts';
import { skipped, useMachine } from './suite.ts';

const vm = useMachine('intel');

const IGB = '0000:21:00.0';
const VF = '0000:21:10.0';
const VF2 = '0000:21:10.2';
const COLD = '0000:21:10.4';
const NVME = '0000:22:00.0';
/** Two NICs of one slot without ACS: one group. */
const PAIR = ['0000:91:00.0', '0000:91:00.1'] as const;

type Ran = { code: number; json: Record<string, never> & { error?: { code: string; message: string } }; err: string };

async function hostdev(line: string, timeoutMs = 180_000): Promise<Ran> {
  const { code, stdout, stderr } = await vm().sh(`hostdev ${line} -j`, { timeoutMs });
  return { code, json: JSON.parse(stdout || '{}'), err: `${stdout}\n${stderr}` };
}

/** Does it, and gives the answer. */
async function does(line: string): Promise<Ran['json']> {
  const ran = await hostdev(line);
  expect(ran.code, ran.err).toBe(0);
  return ran.json;
}

const xmlOf = async (guest: string, how = ''): Promise<string> =>
  (await virsh(vm(), ['dumpxml', guest, ...how.split(' ').filter(Boolean)])).stdout;
const alias = (address: string): string => `ua-hostdev-${address.replaceAll(/[:.]/g, '-')}`;
const books = () => vm().ok('ls /run/hostdev/bindings /run/hostdev/journal 2>/dev/null | grep json || :');
const daemon = () => vm().ok('pidof libvirtd');
const qemuHolds = (name: string) =>
  vm().ok(`ls -l /proc/$(pgrep -f guest=${name},)/fd | grep -o '/dev/vfio/[0-9]*' || :`);
const groupOf = (address: string) => vm().ok(`basename "$(readlink /sys/bus/pci/devices/${address}/iommu_group)"`);

/** The guest's system switches a slot's power off; here the monitor does it, by the root port's Slot Control. */
async function letGo(name: string, address: string): Promise<void> {
  const xml = await xmlOf(name);
  const [, bus, slot, fn] = /0000:([0-9a-f]{2}):([0-9a-f]{2})\.(\d)/.exec(address) ?? [];
  const source = `bus='0x${bus}' slot='0x${slot}' function='0x${fn}'`;
  const hostdevs = [...xml.matchAll(/<hostdev.*?<\/hostdev>/gs)].map((m) => m[0]);
  const mine = hostdevs.find((h) => h.includes(source)) ?? '';
  const guestBus = Number(/<address type='pci' domain='\w+' bus='(\w+)'/.exec(mine)?.[1]);
  const port = new RegExp(`<controller type='pci' index='${guestBus}'.*?slot='(\\w+)' function='(\\w+)'`, 's').exec(
    xml,
  );
  const register = (0x80000000 + (Number(port?.[1]) << 11) + (Number(port?.[2]) << 8) + 0x54 + 0x18).toString(16);
  await vm().ok(`virsh qemu-monitor-command ${name} --hmp 'o/w 0xcf8 0x${register}'`);
  await vm().ok(`virsh qemu-monitor-command ${name} --hmp 'o/h 0xcfc 0x0700'`);
}

let pid: string;
beforeAll(async () => {
  if (skipped) return;
  await installHostdev(vm());
  await createVfs(vm(), IGB, 4);
  await vm().ok('hostdev hook install && systemctl restart libvirtd');
  await vm().ok(
    "sed -i 's/^start_deadline=.*/start_deadline=60/; s/^prepare_deadline=.*/prepare_deadline=120/' /etc/libvirt/hooks/hostdev.conf",
  );
  await defineDomain(vm(), { name: 'g1', hostdevs: [{ address: COLD, managed: false }] });
  await defineDomain(vm(), { name: 'g2' });
  for (const name of ['g1', 'g2']) expect((await virsh(vm(), ['start', name], { timeoutMs: 180_000 })).stderr).toBe('');
  pid = await daemon();
});

describe("managed='no'", () => {
  test('-n changes nothing, and says what would be bound', async () => {
    const json = await does(`attach g2 ${VF} --managed no -n`);
    expect(json).toMatchObject({
      changed: false,
      plan: { devices: [{ address: VF, driver_to: 'tb_igbvf_vfio_pci' }] },
    });
    expect(await driverOf(vm(), VF)).toBe('igbvf');
    expect(await xmlOf('g2')).not.toContain(alias(VF));
  });

  test('is bound, kept, and in the guest that runs, under our alias', async () => {
    const json = await does(`attach g2 ${VF} --managed no`);
    expect(json).toMatchObject({ changed: true, devices: [{ address: VF, live: 'attached', config: 'attached' }] });
    expect(await driverOf(vm(), VF)).toBe('tb_igbvf_vfio_pci');
    expect(await xmlOf('g2')).toContain(alias(VF));
    expect(await xmlOf('g2', '--inactive')).toContain(alias(VF));
    expect(await qemuHolds('g2')).toContain(`/dev/vfio/${await groupOf(VF)}`);
    const status = await does('status');
    expect(status).toMatchObject({
      bindings: expect.arrayContaining([expect.objectContaining({ address: VF, drift: null })]),
    });
    expect(JSON.stringify(status)).not.toContain('attaching');
  });

  test('again: so already', async () => {
    expect(await does(`attach g2 ${VF} --managed no`)).toMatchObject({
      changed: false,
      devices: [{ live: 'already', config: 'already' }],
    });
  });

  test('another guest is told who has it, and nothing changes', async () => {
    const ran = await hostdev(`attach g1 ${VF} --managed no`);
    expect(ran.code, ran.err).toBe(5);
    expect(ran.err).toContain('g2');
    expect(await xmlOf('g1')).not.toContain(alias(VF));
    expect(await xmlOf('g1', '--inactive')).not.toContain(alias(VF));
    expect(await qemuHolds('g2')).toContain(`/dev/vfio/${await groupOf(VF)}`);
  });

  test('detach: out of both, back on its host driver, books without it', async () => {
    expect(await does(`detach g2 ${VF}`)).toMatchObject({
      changed: true,
      devices: [{ address: VF, live: 'detached', config: 'detached', driver: 'igbvf', given_back: true }],
    });
    expect(await xmlOf('g2')).not.toContain(alias(VF));
    expect(await xmlOf('g2', '--inactive')).not.toContain(alias(VF));
    expect(await driverOf(vm(), VF)).toBe('igbvf');
    expect(await books()).not.toContain(VF);
  });

  test('--config alone moves nothing; --live alone keeps nothing', async () => {
    await does(`attach g2 ${VF} --managed no --config`);
    expect(await driverOf(vm(), VF)).toBe('igbvf');
    expect(await xmlOf('g2', '--inactive')).toContain(alias(VF));
    await does(`detach g2 ${VF} --config`);
    await does(`attach g2 ${VF} --managed no --live`);
    expect(await xmlOf('g2', '--inactive')).not.toContain(alias(VF));
    await does(`detach g2 ${VF} --live`);
    expect(await driverOf(vm(), VF)).toBe('igbvf');
  });
});

test("managed='yes': libvirt binds it, and it is back after detach", async () => {
  await does(`attach g2 ${VF} --managed yes`);
  expect(await driverOf(vm(), VF)).toBe('tb_igbvf_vfio_pci');
  expect(await does('status')).toMatchObject({
    bindings: expect.arrayContaining([expect.objectContaining({ address: VF, drift: null })]),
  });
  await does(`detach g2 ${VF}`);
  expect(await driverOf(vm(), VF)).toBe('igbvf');
  expect(await books()).not.toContain(VF);
});

test('a NIC with MAC and VLAN: libvirt refuses while the PF is down, and all is as before; then it has both', async () => {
  const nic = `attach g2 ${VF} --managed no --vnic direct --mac 52:54:00:0a:0b:0c --vlan 42`;
  const down = await hostdev(nic);
  expect(down.json.error?.code, down.err).toBe('HOSTDEV_LIBVIRT');
  expect(await driverOf(vm(), VF)).toBe('igbvf');
  expect(await xmlOf('g2', '--inactive')).not.toContain(alias(VF));
  await vm().ok(`ip link set $(ls /sys/bus/pci/devices/${IGB}/net) up`);
  await does(nic);
  const xml = await xmlOf('g2');
  expect(xml).toContain("<mac address='52:54:00:0a:0b:0c'/>");
  expect(xml).toContain("<tag id='42'/>");
  await does(`detach g2 ${VF}`);
  expect(await driverOf(vm(), VF)).toBe('igbvf');
});

test('a whole group: both functions, or one with its peer taken from the host', async () => {
  const drivers = await Promise.all(PAIR.map((a) => driverOf(vm(), a)));
  await does(`attach g2 ${PAIR.join(' ')} --managed no --live`);
  await does(`detach g2 ${PAIR.join(' ')} --live`);
  expect(await Promise.all(PAIR.map((a) => driverOf(vm(), a)))).toEqual(drivers);
  const alone = await hostdev(`attach g2 ${PAIR[0]} --managed no --live`);
  expect(alone.json.error?.code, alone.err).toBe('HOSTDEV_GROUP_NOT_VIABLE');
  await does(`attach g2 ${PAIR[0]} --managed no --live --unassigned-peers`);
  await does(`detach g2 ${PAIR.join(' ')} --live`);
  expect(await Promise.all(PAIR.map((a) => driverOf(vm(), a)))).toEqual(drivers);
});

test('a whole card on one slot: at the next start, as libvirt plugs only function 0 into a guest that runs', async () => {
  const line = `attach g1 ${PAIR.join(' ')} --managed no --one-slot`;
  expect((await hostdev(line)).json.error?.code).toBe('HOSTDEV_DOMAIN_UNFIT');
  await does(`${line} --config`);
  const xml = await xmlOf('g1', '--inactive');
  const slots = PAIR.map(
    (a) => new RegExp(`${alias(a)}'/>\\s*<address type='pci' domain='0x0000' bus='(\\w+)' slot='0x00'`).exec(xml)?.[1],
  );
  expect(slots[0]).toMatch(/^0x/);
  expect(slots[1]).toBe(slots[0]);
  await does(`detach g1 ${PAIR.join(' ')} --config`);
});

test("an NVMe VF, as a hostdev and as a disk of QEMU's own driver", async () => {
  await createVfs(vm(), NVME, 2);
  const { address } = await onlineNvmeVf(vm(), NVME, 0, { namespace: 2 });
  for (const how of ['--managed no', '--managed no --nvme 1']) {
    await does(`attach g2 ${address} ${how}`);
    expect(await driverOf(vm(), address)).toMatch(/vfio/);
    expect(await xmlOf('g2')).toContain(alias(address));
    await does(`detach g2 ${address}`);
    expect(await driverOf(vm(), address)).toBe('nvme');
    expect(await books()).not.toContain(address);
  }
});

test('no port is free: libvirt refuses, and all is as before', async () => {
  const more = await createVfs(vm(), '0000:92:00.0', 6).catch(() => []);
  const ran = [];
  for (const a of more) ran.push({ a, ...(await hostdev(`attach g2 ${a} --managed no`)) });
  const refused = ran.find((r) => r.code !== 0);
  expect(refused?.json.error?.code, refused?.err).toMatch(/HOSTDEV_LIBVIRT|HOSTDEV_DOMAIN_UNFIT/);
  expect(await driverOf(vm(), refused?.a ?? '')).toBe('igbvf');
  expect(await xmlOf('g2', '--inactive')).not.toContain(alias(refused?.a ?? ''));
  expect(await books()).not.toContain(refused?.a);
  for (const { a, code } of ran) if (code === 0) await does(`detach g2 ${a}`);
});

test('virsh attaches a device that we bound, and an admin keeps it', async () => {
  await does(`bind ${VF2}`);
  await vm().write('/tmp/vf2.xml', hostdevXml({ address: VF2, managed: false }));
  await vm().ok('virsh attach-device g2 /tmp/vf2.xml --live');
  const out = await hostdev(`unbind ${VF2}`);
  expect(out.code, out.err).toBe(5);
  await does(`detach g2 ${VF2} --live`);
  expect(await driverOf(vm(), VF2)).toBe('tb_igbvf_vfio_pci');
  await does(`unbind ${VF2}`);
  expect(await driverOf(vm(), VF2)).toBe('igbvf');
});

test('two attach one VF at once: one has it, the other is told', async () => {
  const [a, b] = await Promise.all(['g1', 'g2'].map((g) => hostdev(`attach ${g} ${VF} --managed no --live`)));
  const codes = [a?.code, b?.code].sort();
  expect(codes[0], `${a?.err}${b?.err}`).toBe(0);
  expect([1, 5]).toContain(codes[1]);
  await does(`detach ${a?.code === 0 ? 'g1' : 'g2'} ${VF} --live`);
  expect(await driverOf(vm(), VF)).toBe('igbvf');
  expect(await books()).not.toContain(VF);
});

describe('a guest that does not answer', () => {
  test('exit 9, the device stays and is known to be leaving', async () => {
    const ran = await hostdev(`detach g1 ${COLD} --live --seconds 12`);
    expect(ran.code, ran.err).toBe(9);
    expect(ran.json.error?.code).toBe('HOSTDEV_PLUG_PENDING');
    expect(await driverOf(vm(), COLD)).toBe('tb_igbvf_vfio_pci');
    expect(JSON.stringify(await does('status'))).toContain('leaving');
  });

  test('once it has let go, status says so and --fix gives it back', async () => {
    await letGo('g1', COLD);
    await vm().ok(`for i in $(seq 100); do virsh dumpxml g1 | grep -q "bus='0x21'" || exit 0; sleep 0.2; done; exit 1`);
    expect((await hostdev('status')).code).toBe(3);
    await does('status --fix');
    expect(await driverOf(vm(), COLD)).toBe('igbvf');
    expect(await books()).not.toContain(COLD);
  });
});

test('the guest is destroyed in the middle: nothing half done', async () => {
  const attaching = hostdev(`attach g2 ${VF} --managed no --live`);
  await virsh(vm(), ['destroy', 'g2']);
  const { code, err } = await attaching;
  expect([0, 1, 3, 4, 5], err).toContain(code);
  await hostdev('status --fix');
  expect(await driverOf(vm(), VF)).toBe('igbvf');
  expect(await books()).not.toContain(VF);
});

test('libvirtd is the one of before', async () => {
  expect(await daemon()).toBe(pid);
});

test.runIf(process.env.HOSTDEV_VM_LONG === '1')(
  'a small Linux in the guest sees the device come and go',
  async () => {
    const { kernel, initrd } = await ensureImage();
    await vm().pushTar(
      ['-C', path.dirname(kernel), path.basename(kernel), path.basename(initrd)],
      '/var/lib/libvirt/boot',
    );
    const at = '/var/lib/libvirt/boot';
    // The kernel hands what stands behind -- to the first process, which tells all devices each second.
    const says = 'mount -t sysfs s /sys; while :; do echo PCI $(cat /sys/bus/pci/devices/*/device) END; sleep 1; done';
    const busybox = says.replace(/\b(mount|cat|sleep)\b/g, '/bin/busybox $1');
    await defineDomain(vm(), {
      name: 'linux',
      memoryMiB: 256,
      linux: {
        kernel: `${at}/${path.basename(kernel)}`,
        initrd: `${at}/${path.basename(initrd)}`,
        cmdline: `console=ttyS0 quiet rdinit=/bin/sh -- -c &quot;${busybox}&quot;`,
        console: '/tmp/linux.console',
      },
    });
    await virsh(vm(), ['start', 'linux'], { timeoutMs: 180_000 });
    const last = () => vm().ok("grep -a 'PCI .*END' /tmp/linux.console | tail -n 1 || :");
    const sees = async (has: boolean): Promise<void> => {
      for (const until = Date.now() + 600_000; Date.now() < until; ) {
        const line = await last();
        if (line !== '' && line.includes('0x10ca') === has) return;
      }
      expect(await vm().ok('tail -c 2000 /tmp/linux.console')).toBe(`the VF is ${has ? 'there' : 'gone'}`);
    };
    await sees(false);
    await does(`attach linux ${VF} --managed no --live`);
    await sees(true);
    await does(`detach linux ${VF} --live --seconds 120`);
    await sees(false);
    expect(await driverOf(vm(), VF)).toBe('igbvf');
    await virsh(vm(), ['destroy', 'linux']);
  },
  1_800_000,
);

/** HOSTDEV_VM_LONG=1: twenty moments, else two. */
const MOMENTS = process.env.HOSTDEV_VM_LONG === '1' ? 20 : 2;

test('libvirtd is killed, restarted and stopped meanwhile: nothing half done, every command back by its deadline', async () => {
  await virsh(vm(), ['start', 'g2'], { timeoutMs: 180_000 });
  const up = (): Promise<string> =>
    vm().ok(
      'systemctl start libvirtd; for i in $(seq 120); do virsh -q list > /dev/null 2>&1 && exit 0; sleep 0.5; done; exit 1',
    );
  const ways = [
    'kill -9 $(pidof libvirtd)',
    'systemctl restart libvirtd',
    'kill -STOP $(pidof libvirtd); sleep 6; kill -CONT $(pidof libvirtd)',
  ];
  for (let n = 0; n < MOMENTS; n += 1) {
    const verb = n % 2 === 0 ? `attach g2 ${VF} --managed no` : `detach g2 ${VF}`;
    if (verb.startsWith('detach')) await does(`attach g2 ${VF} --managed no --seconds 120`);
    const from = Date.now();
    const ran = hostdev(`${verb} --seconds 20`);
    await vm().ok(`sleep ${(2 + (n * 4) / MOMENTS).toFixed(1)}; ${ways[n % ways.length]}`);
    const { code, err } = await ran;
    expect([0, 1, 5, 7, 8, 9], `${n}: ${verb}: ${err}`).toContain(code);
    // Node's start under emulation, 20 s for libvirt and 10 for an undo.
    expect(Date.now() - from, `${n}: ${verb}`).toBeLessThan(120_000);
    await up();
    await hostdev('status --fix');
    const [live, kept, driver, held] = [
      await xmlOf('g2'),
      await xmlOf('g2', '--inactive'),
      await driverOf(vm(), VF),
      await books(),
    ];
    const has = [live.includes(alias(VF)), kept.includes(alias(VF)), driver !== 'igbvf', held.includes(VF)];
    expect(new Set(has).size, `${n}: ${verb}: exit ${code}: ${JSON.stringify(has)} ${err}`).toBe(1);
    if (has[0]) await does(`detach g2 ${VF} --seconds 120`);
  }
}, 1_800_000);
