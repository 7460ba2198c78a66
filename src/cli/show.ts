import { showDevice } from '../actions/inspect.ts';
import { readNames } from '../actions/list.ts';
import { safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { pairs } from './table.ts';

/** `hostdev show DEV` */
export async function show({ host, words, connect }: Invocation): Promise<Answer> {
  const { device: d, guests_asked, warnings } = await showDevice(host, words[0] ?? '', connect);
  const or = (v: string | number | null, none = 'none'): string => (v === null ? none : `${v}`);
  const ids = (v: string | null, p: string | null): string =>
    v === null && p === null ? 'unknown' : `${v ?? '????'}:${p ?? '????'}`;
  const text = pairs([
    ['Address', d.address],
    ['Name', or(d.name, 'unknown')],
    ['Ids', ids(d.vendor_id, d.product_id)],
    ['Subsystem', ids(d.subsystem_vendor_id, d.subsystem_device_id)],
    ['Class', d.class === null ? 'unknown' : `${d.class} ${readNames(host).className(d.class) ?? ''}`.trim()],
    ['Type', d.dev_type],
    ...(d.parent_addr === null ? [] : [['PF', d.parent_addr] as const]),
    ...(d.sriov_totalvfs === null ? [] : [['VFs', `${d.sriov_numvfs} of ${d.sriov_totalvfs}`] as const]),
    ['IOMMU group', or(d.iommu_group)],
    ['NUMA node', or(d.numa_node)],
    ['Driver', or(d.driver)],
    ['Override', d.stuck ? 'did not answer: something holds the device' : or(d.driver_override)],
    ['VFIO driver', or(d.variant_driver, 'unknown')],
    [
      'Managed',
      d.managed === null ? 'yes or no' : `${d.managed}: ${d.driver} is its VFIO provider, and it stays there`,
    ],
    ...(d.vgpu_type === null ? [] : [['vGPU type', d.vgpu_type === '0' ? 'none set' : d.vgpu_type] as const]),
    ['Guest', guests_asked ? safeBlock(or(d.guest)) : 'not asked'],
    ['Reset methods', d.reset_methods.join(' ') || 'none'],
    ...(d.boot_vga === null ? [] : [['Boot VGA', d.boot_vga ? 'yes' : 'no'] as const]),
  ]);
  return { json: { device: d, guests_asked }, text, warnings };
}
