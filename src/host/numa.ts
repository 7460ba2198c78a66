/** How far the host's NUMA nodes are from each other. */
import type { Host } from './host.ts';

/** The distance from one node to another as the firmware's SLIT says (10 is local); null is not measured. */
export function numaDistance(host: Host, from: number, to: number): number | null {
  if (from === to) return 10;
  // drivers/base/node.c node_read_distance: one number for each online node, in their order.
  const online = (host.list(host.numaNodes) ?? []).flatMap((n) => /^node(\d{1,4})$/.exec(n)?.[1] ?? []).map(Number);
  const row = (host.read(host.numaNode(from, 'distance')) ?? '').trim().split(/\s+/);
  const value = row[online.sort((a, b) => a - b).indexOf(to)];
  return value !== undefined && /^\d{1,3}$/.test(value) ? Number(value) : null;
}
