import { fullName, listDevices, readNames } from '../actions/list.ts';
import { safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { table } from './table.ts';

/** `hostdev list` */
export async function list({ host, json, connect }: Invocation): Promise<Answer> {
  const { warnings, ...answer } = await listDevices(host, connect);
  if (json) return { json: answer, text: '', warnings };
  const { devices } = answer;
  const withGuests = devices.some((d) => d.guest !== null);
  const names = readNames(host);
  const rows = devices.map((d) => [
    d.address,
    d.iommu_group === null ? '-' : `${d.iommu_group}`,
    d.numa_node === null ? '-' : `${d.numa_node}`,
    `${d.vendor_id ?? '????'}:${d.product_id ?? '????'}`,
    d.dev_type === 'type-PF' ? `PF ${d.sriov_numvfs}/${d.sriov_totalvfs}` : d.dev_type.replace('type-', ''),
    `${d.driver ?? '-'}${d.stuck ? ' (stuck)' : ''}`,
    ...(withGuests ? [safeBlock(d.guest ?? '-')] : []),
    fullName(names, d) ?? '',
  ]);
  return {
    json: answer,
    text: table(['ADDRESS', 'GROUP', 'NUMA', 'IDS', 'TYPE', 'DRIVER', ...(withGuests ? ['GUEST'] : []), 'NAME'], rows),
    none: 'No PCI devices\n',
    warnings,
  };
}
