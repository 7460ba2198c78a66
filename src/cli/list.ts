import { fullName, listDevices, readNames } from '../actions/list.ts';
import type { Answer, Invocation } from './command.ts';
import { table } from './table.ts';

/** `hostdev list` */
export async function list({ host, json }: Invocation): Promise<Answer> {
  const { devices, warnings } = await listDevices(host);
  if (json) return { json: { devices }, text: '', warnings };
  const names = readNames(host);
  const rows = devices.map((d) => [
    d.address,
    d.iommu_group === null ? '-' : `${d.iommu_group}`,
    d.numa_node === null ? '-' : `${d.numa_node}`,
    `${d.vendor_id ?? '????'}:${d.product_id ?? '????'}`,
    d.dev_type === 'type-PF' ? `PF ${d.sriov_numvfs}/${d.sriov_totalvfs}` : d.dev_type.replace('type-', ''),
    `${d.driver ?? '-'}${d.stuck ? ' (stuck)' : ''}`,
    fullName(names, d) ?? '',
  ]);
  return {
    json: { devices },
    text: table(['ADDRESS', 'GROUP', 'NUMA', 'IDS', 'TYPE', 'DRIVER', 'NAME'], rows),
    none: 'No PCI devices\n',
    warnings,
  };
}
