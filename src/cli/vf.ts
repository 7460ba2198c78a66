import { foreseenRefusal } from '../actions/plan.ts';
import { createVfs, type ListedVf, listVfs, removeVfs, type VfResult } from '../actions/vf.ts';
import { setVgpuType } from '../actions/vgpu.ts';
import { HostdevError } from '../errors.ts';
import { quote, safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { alsoKept, persist } from './kept.ts';
import { table } from './table.ts';

/** `hostdev vf list [PF]` */
export function vfList({ host, words }: Invocation): Answer {
  const { vfs, warnings } = listVfs(host, words[0] ?? null);
  return { json: { vfs }, text: vfs.length === 0 ? '' : vfTable(vfs), none: 'No VFs\n', warnings };
}

/** `hostdev vf create PF --count N [--for vfio|netdev] [--recreate] [--persist]` */
export async function vfCreate({ host, words, own, options }: Invocation): Promise<Answer> {
  const count = wholeNumber('--count', own.count);
  const create = own.persist === true ? (await persist()).createVfsAndKeep : createVfs;
  const { warnings, ...json } = await create(host, words[0] ?? '', count, vfUse(own.for), {
    ...options,
    recreate: own.recreate === true,
  });
  const text = `${changeText(json, options.dryRun, `${json.vfs.length} VFs already`)}${alsoKept(json, options.dryRun)}`;
  return { json, text, warnings, refused: foreseenRefusal(host, json, options) };
}

/** `hostdev vf remove PF [--persist]` */
export async function vfRemove({ host, words, own, options }: Invocation): Promise<Answer> {
  const remove = own.persist === true ? (await persist()).removeVfsAndKeep : removeVfs;
  const { warnings, ...json } = await remove(host, words[0] ?? '', options);
  const text = `${changeText(json, options.dryRun, 'no VFs')}${alsoKept(json, options.dryRun)}`;
  return { json, text, warnings, refused: foreseenRefusal(host, json, options) };
}

/** `hostdev vf set VF… --vgpu-type N [--persist]` */
export async function vfSet({ host, words, own, options }: Invocation): Promise<Answer> {
  const type = own['vgpu-type'];
  if (typeof type !== 'string' || !/^\d{1,10}$/.test(type) || Number(type) > 0xffffffff)
    throw new HostdevError('HOSTDEV_USAGE', `--vgpu-type ${quote(type)} is no vGPU type`, {
      hint: 'A number of nvidia/creatable_vgpu_types of the VF; 0 takes the type away.',
    });
  const set = own.persist === true ? (await persist()).setTypeAndKeep : setVgpuType;
  const { warnings, ...json } = await set(host, words, `${Number(type)}`, options);
  const steps = options.dryRun ? json.plan.steps.map(stepText).join('') : '';
  const ends = json.plan.devices.map((d) => `${d.address}  vGPU type ${Number(type) === 0 ? 'none' : Number(type)}\n`);
  const done = ends.length === 0 ? 'Nothing to do: so already\n' : `${safeBlock(steps)}${safeBlock(ends.join(''))}`;
  const text = `${done}${alsoKept(json, options.dryRun)}`;
  return { json, text, warnings, refused: foreseenRefusal(host, json, options) };
}

const stepText = ({ value, path }: { value: string; path: string }): string =>
  `${JSON.stringify(value.trim())} > /${path}\n`;

/** What VFs are for, as typed. */
export function vfUse(use: string | boolean | undefined = 'vfio'): 'vfio' | 'netdev' {
  if (use === 'vfio' || use === 'netdev') return use;
  throw new HostdevError('HOSTDEV_USAGE', `--for ${quote(use)}: VFs are for vfio or for netdev`);
}

/** NumVFs has 16 bits; how many the PF takes is the kernel's to say. */
export function wholeNumber(option: string, text: string | boolean | undefined): number {
  const n = typeof text === 'string' && /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (n >= 1 && n <= 65535) return n;
  throw new HostdevError('HOSTDEV_USAGE', `${option} ${quote(text)} is no number of VFs`, {
    hint: `A whole number from 1${option === '--count' ? "; 'hostdev vf remove' takes them all away" : ''}.`,
  });
}

function changeText({ changed, plan, vfs }: Omit<VfResult, 'warnings'>, dryRun: boolean, already: string): string {
  if (!changed && plan.steps.length === 0) return `Nothing to do: ${already}\n`;
  const steps = dryRun ? plan.steps.map(stepText) : [];
  const ends = vfs.length > 0 ? vfTable(vfs) : plan.devices.map((d) => `${d.address}  removed\n`).join('');
  return `${safeBlock(steps.join(''))}${safeBlock(ends)}`;
}

const vfTable = (vfs: readonly ListedVf[]): string =>
  table(
    ['ADDRESS', 'PF', 'GROUP', 'DRIVER', 'FOR'],
    vfs.map((d) => [
      d.address,
      d.parent_addr ?? '-',
      d.iommu_group === null ? '-' : `${d.iommu_group}`,
      safeBlock(d.driver ?? '-'),
      safeBlock(d.for.join(', ') || '-'),
    ]),
  );
