/**
 * What `domain plan` writes, judged by a libvirt that has seen it all: defined with VALIDATE, stored as asked, started.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LATER_WISHES, Plans, WISHES } from '../mock/plans.ts';
import { droppedFromDomain } from '../mock/stored.ts';
import { createVfs, domainXml, driverOf, installHostdev, virsh } from './guest.ts';
import { quote } from './machine.ts';
import { skipped, useMachine } from './suite.ts';

const vm = useMachine('intel');

const IGB = '0000:21:00.0';
const VF = '0000:21:10.0';
const E1000E = '0000:23:00.0';
const TWIN = '0000:91:00.0';
const OTHER_TWIN = '0000:91:00.1';
const MAC = ['--mac', '52:54:00:ab:cd:ef'];

const plan = (file: string, args: string[]) =>
  vm().sh(`hostdev domain plan ${quote(file)} ${args.map(quote).join(' ')}`, { timeoutMs: 120_000 });

/** Version of libvirt and QEMU in the machine, for the wishes that are planned outside it. */
async function versions(): Promise<{ libvirt: string; qemu: string }> {
  const libvirt = (await vm().ok('virsh --version')).trim();
  const qemu = /version (\d+\.\d+\.\d+)/.exec(await vm().ok('qemu-system-x86_64 --version'))?.[1] ?? '';
  return { libvirt, qemu };
}

const plans = new Plans();
beforeAll(async () => {
  if (skipped) return;
  await installHostdev(vm());
  await createVfs(vm(), IGB, 2);
  await vm().write('/tmp/base.xml', domainXml({ name: 'base' }));
});
afterAll(() => plans.remove());

describe("this machine's own devices", () => {
  test.each([
    ['hostdev', [VF, '--managed=no']],
    ['driver', [VF, '--driver', 'tb_igbvf_vfio_pci']],
    ['rom and boot', [E1000E, '--rom', '/usr/share/qemu/efi-e1000e.rom', '--boot', '1']],
    ['no rom', [VF, '--rom=none']],
    ['peers', [TWIN, '--unassigned-peers']],
    ['direct', [VF, '--vnic', 'direct', ...MAC, '--vlan', '7']],
    ['802.1Qbh', [VF, '--vnic', '802.1qbh', ...MAC, '--profile-id', 'p1']],
    ['macvtap', [VF, '--vnic', 'macvtap', ...MAC, '--vlan', '7']],
    ['direct-physical', [E1000E, '--vnic', 'direct-physical']],
    ['viommu auto', [VF, '--viommu', 'auto']],
    ['viommu intel', [VF, '--viommu', 'intel']],
    ['viommu virtio', [VF, '--viommu', 'virtio']],
  ])('%s: defined with VALIDATE, and nothing of it dropped', async (_, args) => {
    const { code, stdout: xml, stderr } = await plan('/tmp/base.xml', args);
    expect(code, stderr).toBe(0);
    await vm().write('/tmp/planned.xml', xml);
    const defined = await virsh(vm(), ['define', '--validate', '/tmp/planned.xml']);
    expect(defined.code, `${defined.stderr}\n${xml}`).toBe(0);
    const stored = await vm().ok('virsh dumpxml --inactive base; virsh undefine base >&2');
    expect(droppedFromDomain(xml, stored)).toEqual([]);
  });

  test('fragments are what attach-device takes, in their order', async () => {
    const { stdout } = await plan('/tmp/base.xml', [TWIN, '--unassigned-peers', '-j']);
    const { fragments, xml } = JSON.parse(stdout) as { fragments: { xml: string }[]; xml: string };
    expect(fragments).toHaveLength(2);
    await vm().ok('virsh define --validate /tmp/base.xml');
    for (const fragment of fragments) {
      await vm().write('/tmp/fragment.xml', fragment.xml);
      await vm().ok('virsh attach-device base /tmp/fragment.xml --config');
    }
    const stored = await vm().ok('virsh dumpxml --inactive base; virsh undefine base >&2');
    expect(droppedFromDomain(xml, stored)).toEqual([]);
  });

  test('without --unassigned-peers the group is refused; with it the guest starts', async () => {
    const refused = await plan('/tmp/base.xml', [TWIN]);
    expect(refused.code).toBe(3);
    expect(refused.stderr).toContain(`Give --unassigned-peers to take ${OTHER_TWIN}`);
    const { stdout } = await plan('/tmp/base.xml', [TWIN, '--unassigned-peers']);
    await vm().write('/tmp/planned.xml', stdout);
    await vm().ok('virsh define --validate /tmp/planned.xml');
    const started = await virsh(vm(), ['start', 'base'], { timeoutMs: 120_000 });
    expect(started.code, started.stderr).toBe(0);
    expect([await driverOf(vm(), TWIN), await driverOf(vm(), OTHER_TWIN)]).toEqual(['vfio-pci', 'vfio-pci']);
    await vm().ok('virsh destroy base; virsh undefine base', { timeoutMs: 120_000 });
    expect(await driverOf(vm(), OTHER_TWIN)).toBe('e1000e');
  });
});

test('sixty domains with every wish: this libvirt takes them all, and drops nothing', async () => {
  await plans.write({ ...WISHES, ...LATER_WISHES }, await versions());
  expect(plans.written.length).toBeGreaterThan(300);
  await vm().push(plans.dir, '/tmp/plans');
  const run = (commands: string) =>
    vm().sh(`LC_ALL=C.UTF-8 virsh -q -c test:///default ${quote(commands)}`, { timeoutMs: 300_000 });
  expect(await plans.refusedOrDropped('/tmp/plans', run)).toEqual([]);
}, 600_000);
