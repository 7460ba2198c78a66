/** `status --fix`: the order in which what is on its way, what drifted and what no hold is about are put right. */
import { readBooks } from '../binding/books.ts';
import type { Host } from '../host/host.ts';
import { holdUnheld } from './holdUnheld.ts';
import type { ActionOptions } from './options.ts';
import { fixStatus, type Mended } from './statusFix.ts';
import { whoHas } from './whoHas.ts';

/** What is not often there is not loaded for nothing. */
async function settle(host: Host, connect: string | null, options: ActionOptions): Promise<Mended[]> {
  if (!readBooks(host).books.some((b) => b.holds.some((h) => h.plug !== undefined))) return [];
  return (await import('./settlePlugs.ts')).settlePlugs(host, connect, options);
}

/**
 * What is on its way into guests or out of them first, where libvirt can be asked: the rest goes by who holds what, and
 * by what libvirt says then.
 */
export async function mendStatus(host: Host, connect: string | null, options: ActionOptions): Promise<Mended[]> {
  const settled = await settle(host, connect, options);
  const all = await fixStatus(host, options, await whoHas(host, connect));
  const isSettled = (m: Mended): boolean => settled.some((s) => s.would && s.address === m.address);
  const fixed = all.filter((m) => !isSettled(m));
  // A bind that was cut off is whole only now.
  if (!options.dryRun) fixed.push(...(await settle(host, connect, options)));
  return [...settled, ...fixed, ...(await holdUnheld(host, await whoHas(host, connect), options))];
}
