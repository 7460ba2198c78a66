import { expect, test } from 'vitest';
import { Host } from '../../../src/host/host.ts';
import { iommuState } from '../../../src/host/iommu.ts';
import { SMALL_HOST } from '../../mock/hosts.ts';
import { KernelModel } from '../../mock/kernel.ts';

const off = (cmdline: string, tables: string[] | null) => {
  const kernel = new KernelModel([], []);
  kernel.files.set('proc/cmdline', cmdline);
  for (const t of tables ?? []) kernel.files.set(`sys/firmware/acpi/tables/${t}`, '');
  return iommuState(new Host('/nowhere', kernel));
};

test('on: there are groups', () => {
  expect(iommuState(new Host('/nowhere', new KernelModel(SMALL_HOST, [])))).toMatchObject({ on: true, reason: null });
});

test('off, and why: command line, kernel, firmware', () => {
  expect(off('quiet intel_iommu=off\n', ['DMAR']).reason).toContain('intel_iommu=off');
  expect(off('quiet iommu=off\n', ['IVRS']).reason).toContain('iommu=off');
  expect(off('quiet\n', ['DMAR', 'FACP']).reason).toContain('add intel_iommu=on');
  expect(off('quiet\n', ['IVRS']).reason).toContain('dmesg');
  expect(off('quiet\n', ['FACP']).reason).toContain('firmware shows no IOMMU');
  expect(off('quiet\n', null).reason).toContain('not measured');
});

test('no-IOMMU groups are none', () => {
  const kernel = new KernelModel([{ address: '0000:01:00.0', ids: '8086:10ca', group: 0, driver: null }], []);
  kernel.files.set('sys/kernel/iommu_groups/0/name', 'vfio-noiommu\n');
  expect(iommuState(new Host('/nowhere', kernel))).toMatchObject({
    on: false,
    reason: expect.stringContaining('no-IOMMU'),
  });
});
