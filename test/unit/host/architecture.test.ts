/** Which architecture a root is of, and that facts of x86 are neither asked of the others nor advised to them. */
import { afterEach, describe, expect, test } from 'vitest';
import { type Diagnosis, diagnose } from '../../../src/actions/doctor.ts';
import { explainDevice } from '../../../src/actions/groupWhy.ts';
import { loadNative } from '../../../src/addon/load.ts';
import { architecture } from '../../../src/host/architecture.ts';
import { Host } from '../../../src/host/host.ts';
import { interruptRemapping } from '../../../src/host/interrupts.ts';
import { iommuState } from '../../../src/host/iommu.ts';
import { StaticHost, type Tree, type TreeDevice } from '../../mock/tree.ts';

const hosts: StaticHost[] = [];
afterEach(() => {
  for (const h of hosts.splice(0)) h.remove();
});

const CARD: TreeDevice = { address: '0002:00:00.0', ids: '15b3:1016', group: 2, driver: 'mlx5_core' };
const PLAIN = '  3:        101         22  PCI-MSI  mlx5_async0@pci:0002:00:00.0\n';

function root(files: Tree['files'], devices: TreeDevice[] = [CARD]): Host {
  const h = new StaticHost({ devices, files: { 'proc/interrupts': `CPU0 CPU1\n${PLAIN}`, ...files } });
  hosts.push(h);
  return new Host(h.root, loadNative());
}

const look = (host: Host): Promise<Diagnosis> => diagnose(host, { native: '', nodes: [], cli: '' });
const ids = (d: Diagnosis): string[] => d.findings.map((f) => f.id);

describe('which it is', () => {
  test.each([
    ['proc/sys/kernel/arch', 's390x\n', 's390'],
    ['proc/sys/kernel/arch', 'x86_64\n', 'x86'],
    ['proc/sys/kernel/arch', 'aarch64\n', 'arm'],
    ['proc/sys/kernel/arch', 'ppc64le\n', 'power'],
    ['proc/cpuinfo', 'vendor_id       : IBM/S390\n# processors    : 4\n', 's390'],
    ['proc/cpuinfo', 'processor\t: 0\nvendor_id\t: GenuineIntel\n', 'x86'],
    ['proc/cpuinfo', 'processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n', 'arm'],
    ['proc/cpuinfo', 'processor\t: 0\ncpu\t\t: POWER9, altivec supported\n', 'power'],
    ['proc/interrupts', `CPU0 CPU1\nEXT:  10  1  External\n${PLAIN}`, 's390'],
    ['proc/interrupts', 'CPU0 CPU1\n 24:  0  7  XICS 2097152 Edge  x\n', 'power'],
    ['proc/interrupts', 'CPU0 CPU1\n 24:  0  7  OPAL MSI 31  Edge  nvme\n', 'power'],
    ['sys/bus/css/uevent', '', 's390'],
    ['sys/bus/pci/devices/0002:00:00.0/function_id', '0x00000502\n', 's390'],
    ['sys/firmware/opal/msglog', '', 'power'],
    ['sys/firmware/devicetree/base/compatible', 'ibm,pseries\0', 'power'],
    ['sys/class/iommu/smmu3.0x40000000/uevent', '', 'arm'],
    ['proc/cpuinfo', 'processor\t: 0\n', null],
  ])('%s %j', (path, text, arch) => expect(architecture(root({ [path]: text }))).toBe(arch));

  test('a driver whose name is a row of s390 says nothing', () => {
    expect(architecture(root({ 'proc/interrupts': ' 24:  0  0  PCI-MSI 0-edge  EXT: I/O: XICS\n' }))).toBeNull();
  });
});

test('interrupts: s390 and POWER isolate by themselves, whatever the chip is called; elsewhere the chip tells', () => {
  expect(interruptRemapping(root({ 'proc/sys/kernel/arch': 's390x\n' })).state).toBe('on');
  expect(interruptRemapping(root({ 'proc/sys/kernel/arch': 'ppc64le\n' })).state).toBe('on');
  expect(interruptRemapping(root({ 'proc/sys/kernel/arch': 'x86_64\n' })).state).toBe('off');
  expect(interruptRemapping(root({ 'proc/sys/kernel/arch': 'aarch64\n' })).state).toBe('off');
  expect(interruptRemapping(root({})).state).toBe('off');
});

describe('doctor and group why', () => {
  test('s390: nothing about remapping, firmware tables or iommu=pt; assignable', async () => {
    const host = root({
      'proc/sys/kernel/arch': 's390x\n',
      'proc/cmdline': 'root=/dev/dasda1\n',
      'sys/kernel/iommu_groups/2/type': 'DMA-FQ\n',
    });
    const found = ids(await look(host));
    expect(found.filter((id) => /interrupt|iommu/.test(id))).toEqual([]);
    expect((await explainDevice(host, CARD.address)).why).toMatchObject({ assignable: true });
  });

  test('x86 with the same chip is told so', async () => {
    const host = root({ 'proc/sys/kernel/arch': 'x86_64\n' });
    expect(ids(await look(host))).toContain('interrupt-remapping');
    expect((await explainDevice(host, CARD.address)).why.assignable).toBe(false);
  });

  test('Arm: its own word for passthrough, and nothing to switch on in the firmware for interrupts', async () => {
    const d = await look(
      root({
        'proc/sys/kernel/arch': 'aarch64\n',
        'proc/cmdline': 'root=/dev/sda1\n',
        'sys/kernel/iommu_groups/2/type': 'DMA-FQ\n',
        'etc/default/grub': 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n',
      }),
    );
    const translated = d.findings.find((f) => f.id === 'iommu-translated-host');
    expect(JSON.stringify(translated?.fix)).toContain('iommu.passthrough=1');
    expect(JSON.stringify(translated?.fix)).not.toContain('iommu=pt');
    expect(d.findings.find((f) => f.id === 'interrupt-remapping')?.fix.map((f) => f.tool)).not.toContain('firmware');
  });

  test('POWER: VFIO maps by spapr_tce, and type1 is not missed', async () => {
    const modules = { 'sys/module/vfio/refcnt': '0\n', 'sys/module/vfio_pci/refcnt': '0\n' };
    const dep = { 'lib/modules/6.12.0-static/modules.dep': 'kernel/vfio_iommu_spapr_tce.ko:\n' };
    const d = await look(root({ 'proc/sys/kernel/arch': 'ppc64le\n', ...modules, ...dep }));
    expect(ids(d)).not.toContain('vfio-missing');
    expect(d.findings.find((f) => f.id === 'vfio-not-loaded')?.object).toBe('vfio_iommu_spapr_tce');
  });
});

describe('no groups: the reason is the architecture’s own', () => {
  const lone: TreeDevice[] = [{ address: '0002:00:00.0', ids: '15b3:1016', driver: 'mlx5_core' }];
  test.each([
    [{ 'proc/sys/kernel/arch': 's390x\n', 'sys/firmware/acpi/tables/x/y': '' }, 'CONFIG_S390_IOMMU', 'iommu-kernel'],
    [{ 'proc/sys/kernel/arch': 'ppc64le\n' }, 'SPAPR_TCE', 'iommu-kernel'],
    [{ 'sys/firmware/devicetree/base/model': 'Raspberry Pi\0' }, 'device tree', 'iommu-firmware'],
  ])('%j', async (files, word, id) => {
    const host = root(files, lone);
    expect(iommuState(host)).toMatchObject({ on: false, reason: expect.stringContaining(word) });
    const found = (await look(host)).findings.find((f) => f.id.startsWith('iommu-'));
    expect(found).toMatchObject({ id, cause: expect.stringContaining(word) });
    expect(JSON.stringify(found)).not.toMatch(/VT-d|AMD-Vi \(|DMAR/);
  });

  test('Arm with ACPI is not told of VT-d', () => {
    const host = root({ 'proc/sys/kernel/arch': 'aarch64\n', 'sys/firmware/acpi/tables/FACP': '' }, lone);
    expect(iommuState(host).reason).toContain('switch on SMMU');
  });
});
