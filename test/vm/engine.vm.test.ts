/**
 * What the engine promises, on a real kernel and a real libvirt: a prepare whose libvirtd, hook or node dies leaves
 * nothing behind; two guests that start in the same second; a release that cannot write; changes by hand; a guest on a
 * VF that was on VFIO before. `npm run test:vm:engine` takes 20 moments and 20 rounds, the suite a few.
 */
import { beforeAll, describe, expect, test } from 'vitest';
import { createVfs, defineDomain, driverOf, installHostdev, overrideOf, virsh } from './guest.ts';
import { skipped, useMachine } from './suite.ts';

const vm = useMachine('intel');

const LONG = process.env.HOSTDEV_VM_LONG === '1';
const ROUNDS = LONG ? 20 : 2;
const MOMENTS = LONG ? 20 : 3;
const IGB = '0000:21:00.0';
const VF = '0000:21:10.0';
const OTHER = '0000:21:10.2';
const VARIANT = 'tb_igbvf_vfio_pci';

async function eventually(look: () => Promise<unknown>, wanted: unknown): Promise<void> {
  for (const until = Date.now() + 90_000; Date.now() < until; ) if ((await look()) === wanted) return;
  expect(await look()).toBe(wanted);
}

const host = (address: string) => driverOf(vm(), address);
const files = () => vm().ok('ls /run/hostdev/bindings /run/hostdev/journal 2>/dev/null | grep -c json || :');
const status = async () => JSON.parse((await vm().sh('hostdev status -j')).stdout);

/**
 * As it was before any guest: on its host driver, and nothing in books or journal, after a `status --fix` if need be.
 */
async function expectHome(address = VF): Promise<void> {
  await eventually(async () => {
    if ((await files()) !== '0') await vm().sh('hostdev status --fix');
    return `${await host(address)} ${await overrideOf(vm(), address)} ${await files()}`;
  }, 'igbvf null 0');
}

const define = (name: string, address: string, managed = false) =>
  defineDomain(vm(), { name, hostdevs: [{ address, managed }] });
const destroy = (name: string) => virsh(vm(), ['destroy', name], { timeoutMs: 120_000 });

beforeAll(async () => {
  if (skipped) return;
  await installHostdev(vm());
  for (const vf of await createVfs(vm(), IGB, 4)) await eventually(() => host(vf), 'igbvf');
  await vm().sh('hostdev hook install');
  await vm().ok(
    "sed -i 's/^start_deadline=.*/start_deadline=60/; s/^prepare_deadline=.*/prepare_deadline=120/; s/^other_deadline=.*/other_deadline=30/' /etc/libvirt/hooks/hostdev.conf && systemctl restart libvirtd",
  );
  for (const [name, address, managed] of [
    ['no', VF, false],
    ['yes', VF, true],
    ['other', OTHER, false],
  ] as const)
    await define(name, address, managed);
});

describe('somebody dies while a guest starts', () => {
  /** Starts a guest and kills, after so many tenths of a second, what a pattern finds. */
  const killed = (pattern: string, tenths: number) =>
    vm().sh(
      `(LC_ALL=C virsh start no > /tmp/start.out 2>&1; echo $? > /tmp/start.code) & for i in $(seq 100); do pgrep -f '${pattern}' > /dev/null && break; sleep 0.1; done
       sleep ${(tenths / 10).toFixed(1)}; pkill -9 -f '${pattern}'; wait; cat /tmp/start.code`,
      { timeoutMs: 170_000 },
    );

  for (const [what, pattern] of [
    ['the hook executable', '^/etc/libvirt/hooks/qemu.d/90-hostdev no prepare'],
    ['node in prepare', 'hook run .* no prepare'],
    ['node in start', 'hook run .* no start'],
  ] as const)
    test(`${what}, at ${MOMENTS} moments: nothing is left, or the guest runs`, { timeout: 3_000_000 }, async () => {
      for (let n = 0; n < MOMENTS; n += 1) {
        const { stdout } = await killed(pattern, Math.round((n * 60) / MOMENTS));
        if (stdout.trim().split('\n').at(-1) === '0') await destroy('no');
        await expectHome();
        expect(await vm().ok('virsh domstate no')).toBe('shut off');
      }
    });

  test(`node in release, at ${MOMENTS} moments: the next hostdev finishes it`, { timeout: 3_000_000 }, async () => {
    for (let n = 0; n < MOMENTS; n += 1) {
      expect((await virsh(vm(), ['start', 'no'], { timeoutMs: 120_000 })).stderr).toBe('');
      await vm().sh(
        `(virsh destroy no > /dev/null 2>&1) & for i in $(seq 100); do pgrep -f 'hook run .* no release' > /dev/null && break; sleep 0.1; done
         sleep ${((n * 6) / MOMENTS).toFixed(1)}; pkill -9 -f 'hook run .* no release'; wait`,
        { timeoutMs: 120_000 },
      );
      await expectHome();
    }
  });

  test('libvirtd, while prepare waits; and libvirtd restarted: nothing is bound behind its back', async () => {
    for (const end of ['kill -9 $(pidof libvirtd); sleep 1; systemctl start libvirtd', 'systemctl restart libvirtd']) {
      const group = await vm().ok(`basename "$(readlink /sys/bus/pci/devices/${VF}/iommu_group)"`);
      await vm().ok('hostdev status > /dev/null; mkdir -p /run/hostdev/lock');
      await vm().sh(
        `(flock /run/hostdev/lock/group-${group} sleep 25) > /dev/null 2>&1 &
         (virsh start no > /tmp/start.out 2>&1) & for i in $(seq 100); do pgrep -f 'hook run .* no prepare' > /dev/null && break; sleep 0.1; done
         sleep 8; ${end}; wait`,
        { timeoutMs: 170_000 },
      );
      await eventually(async () => (await vm().sh("pgrep -f 'hook run .* no prepare'")).stdout.trim(), '');
      await expectHome();
      const { bindings } = await status();
      expect(bindings).toEqual([]);
      await eventually(async () => (await vm().sh('virsh domstate no')).stdout.trim(), 'shut off');
    }
  });
});

test(`two guests in the same second for one VF, ${ROUNDS} rounds: one runs, the other is told who has it`, {
  timeout: 3_600_000,
}, async () => {
  await define('no2', VF);
  for (let round = 0; round < ROUNDS; round += 1) {
    const names = round % 2 === 0 ? ['no', 'yes'] : ['no', 'no2'];
    await vm().sh(
      names
        .map((n) => `(LC_ALL=C virsh start ${n} > /tmp/${n}.out 2>&1; echo $? > /tmp/${n}.code) &`)
        .join(' ')
        .concat(' wait'),
      { timeoutMs: 170_000 },
    );
    const codes = await Promise.all(names.map((n) => vm().ok(`cat /tmp/${n}.code`)));
    const texts = await Promise.all(names.map((n) => vm().ok(`cat /tmp/${n}.out`)));
    expect(codes.filter((c) => c === '0').length, `round ${round}: ${texts.join(' | ')}`).toBe(1);
    const winner = names[codes.indexOf('0')] ?? '';
    expect(texts[codes.indexOf('0') === 0 ? 1 : 0], `round ${round}`).toContain(`domain ${winner}`);
    expect(await host(VF)).toBe(VARIANT);
    await destroy(winner);
    await expectHome();
  }
});

test('a release on a store that is read-only, and on a full one: drift by name, and --fix gives back', async () => {
  for (const [refuse, undo] of [
    ['mount -o bind /run/hostdev /run/hostdev && mount -o remount,bind,ro /run/hostdev', 'umount /run/hostdev'],
    [
      'mkdir -p /tmp/copy && cp -a /run/hostdev/. /tmp/copy/ && mount -t tmpfs -o size=64k,mode=755 none /run/hostdev && cp -a /tmp/copy/. /run/hostdev/ && (cat /dev/zero > /run/hostdev/fill || :)',
      'rm -rf /tmp/copy && cp -a /run/hostdev /tmp/copy && umount /run/hostdev && rm -rf /run/hostdev/* && cp -a /tmp/copy/. /run/hostdev/ && rm -f /run/hostdev/fill',
    ],
  ] as const) {
    expect((await virsh(vm(), ['start', 'no'], { timeoutMs: 120_000 })).stderr).toBe('');
    await eventually(() => vm().ok('ls /run/hostdev/started 2>/dev/null | wc -l'), '1');
    await vm().ok(refuse);
    await destroy('no');
    await eventually(async () => (await vm().sh("pgrep -f 'hook run .* no release'")).stdout.trim(), '');
    await vm().ok(undo);
    const { bindings } = await status();
    if (bindings.length > 0) expect(bindings).toMatchObject([{ address: VF, drift: expect.stringContaining('no') }]);
    await expectHome();
  }
});

describe('by hand', () => {
  const unbound = `echo ${VF} > /sys/bus/pci/devices/${VF}/driver/unbind`;
  const hands: Record<string, string> = {
    unbind: unbound,
    override: `echo igbvf > /sys/bus/pci/devices/${VF}/driver_override`,
    'override cleared and probed': `${unbound}; echo > /sys/bus/pci/devices/${VF}/driver_override; echo ${VF} > /sys/bus/pci/drivers_probe`,
    rmmod: 'modprobe -r tb_igbvf_vfio_pci',
  };
  for (const [what, hand] of Object.entries(hands))
    test(`${what}: status shows it, --fix mends it, unbind brings the device where it was before hostdev`, async () => {
      await vm().ok(`hostdev bind ${VF}`);
      await vm().ok(hand);
      const drifted = await vm().sh('hostdev status');
      expect(drifted.code, drifted.stdout).toBe(3);
      const fixed = await vm().sh('hostdev status --fix');
      expect(fixed.code, fixed.stdout).toBe(0);
      expect(await host(VF)).toBe(VARIANT);
      await vm().ok(`hostdev unbind ${VF}`);
      expect([await host(VF), await overrideOf(vm(), VF), await files()]).toEqual(['igbvf', null, '0']);
      // And without --fix.
      await vm().ok(`hostdev bind ${VF}`);
      await vm().ok(hand);
      if (what !== 'override') {
        const r = await vm().sh(`hostdev unbind ${VF}`);
        expect(r.code, r.stderr).toBe(0);
      } else expect((await vm().sh(`hostdev unbind ${VF}`)).code).toBe(5);
      await vm().sh('hostdev status --fix');
      await vm().sh(`hostdev unbind ${VF}`);
      expect([await host(VF), await overrideOf(vm(), VF), await files()]).toEqual(['igbvf', null, '0']);
    });

  test("numvfs: the VFs that come are others, and stay the host's", async () => {
    await vm().ok(`hostdev vf remove ${IGB} && hostdev vf create ${IGB} --count 4 --for vfio`);
    expect(await host(VF)).toBe(VARIANT);
    await vm().ok(`cd /sys/bus/pci/devices/${IGB} && echo 0 > sriov_numvfs && echo 5 > sriov_numvfs && udevadm settle`);
    await eventually(() => host(VF), 'igbvf');
    expect((await vm().sh('hostdev status')).code).toBe(3);
    expect((await vm().sh('hostdev status --fix')).code).toBe(0);
    expect(await host(VF)).toBe('igbvf');
    expect(await files()).toBe('0');
    expect((await vm().sh(`hostdev unbind ${VF}`)).code).toBe(4);
    for (const vf of await createVfs(vm(), IGB, 4)) await eventually(() => host(vf), 'igbvf');
  });
});

describe('a guest on a VF that was on VFIO before', () => {
  const NOVA = `[pci]\ndevice_spec = { "vendor_id": "8086", "product_id": "10ca", "managed": "no" }\nalias = { "name": "vf", "vendor_id": "8086", "product_id": "10ca", "device_type": "type-VF" }\n`;
  const setups: Record<string, [string, string]> = {
    "by the operator's own hand": [
      `modprobe ${VARIANT}; echo ${VARIANT} > /sys/bus/pci/devices/${VF}/driver_override; echo ${VF} > /sys/bus/pci/devices/${VF}/driver/unbind; echo ${VF} > /sys/bus/pci/drivers_probe`,
      `echo > /sys/bus/pci/devices/${VF}/driver_override; echo ${VF} > /sys/bus/pci/devices/${VF}/driver/unbind; echo ${VF} > /sys/bus/pci/drivers_probe`,
    ],
    'after bind': [`hostdev bind ${VF}`, `hostdev unbind ${VF}`],
    'after vf create': [
      `hostdev vf remove ${IGB} && hostdev vf create ${IGB} --count 4 --for vfio`,
      `hostdev vf remove ${IGB} && hostdev vf create ${IGB} --count 4 --for netdev`,
    ],
  };
  for (const [what, [setUp, end]] of Object.entries(setups))
    test(`${what}: status, pool list, claim, domain plan, unbind, vf remove and a second guest all know it`, async () => {
      await vm().write('/tmp/nova.conf', NOVA);
      await vm().ok(setUp);
      expect(await host(VF)).toBe(VARIANT);
      expect((await virsh(vm(), ['start', 'no'], { timeoutMs: 120_000 })).stderr).toBe('');
      expect(await vm().ok('hostdev status')).toMatch(new RegExp(`${VF}.*\\bno\\b`));
      const pools = JSON.parse(await vm().ok('hostdev pool list -j --config /tmp/nova.conf'));
      expect(JSON.stringify(pools)).toContain('no has it');
      const claim = JSON.parse(await vm().ok('hostdev claim vf:1 -n -j --config /tmp/nova.conf'));
      expect(JSON.stringify(claim)).not.toContain(VF);
      const plan = await vm().ok('hostdev domain plan /tmp/other.xml --alias vf:1 --config /tmp/nova.conf 2>&1');
      expect(plan).not.toContain("bus='0x21' slot='0x10' function='0x0'");
      for (const command of [`unbind ${VF}`, `vf remove ${IGB}`]) {
        const r = await vm().sh(`hostdev ${command}`);
        expect(r, command).toMatchObject({ code: 5, stderr: expect.stringMatching(/\bno\b/) });
      }
      const second = await virsh(vm(), ['start', 'yes'], { timeoutMs: 120_000 });
      expect(second.stderr).toContain('domain no');
      expect(await vm().ok('virsh domstate no')).toBe('running');
      await destroy('no');
      await eventually(async () => new RegExp(`${VF}.*\\bno\\b`).test((await vm().sh('hostdev status')).stdout), false);
      expect(await host(VF)).toBe(VARIANT);
      await vm().ok(end);
      await eventually(() => host(VF), 'igbvf');
      await expectHome();
    });
});
