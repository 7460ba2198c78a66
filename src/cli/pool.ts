import { listPools, type PoolReport } from '../actions/poolList.ts';
import { safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { setupOptions } from './setupInput.ts';
import { colours, table } from './table.ts';

/** Keys that have a column of their own. */
const SHOWN = new Set(['vendor_id', 'product_id', 'dev_type', 'numa_node', 'address', 'physical_network']);
/** What Nova puts into every pool of SR-IOV. */
const USUAL: Record<string, string> = { remote_managed: 'false' };

/** `hostdev pool list` */
export async function poolList(invocation: Invocation): Promise<Answer> {
  const { warnings, ...json } = await listPools(invocation.host, await setupOptions(invocation), invocation.connect);
  const { warn } = colours(process.stdout);
  const network = (name: string | null): string => safeBlock(name ?? '-');
  const rows = json.pools.map((p) => [
    safeBlock(`${p.keys.address}`),
    `${p.keys.vendor_id ?? '????'}:${p.keys.product_id ?? '????'}`,
    `${p.keys.dev_type}`.replace('type-', ''),
    `${p.keys.numa_node ?? '-'}`,
    network(p.physical_network),
    safeBlock(p.resource_classes.join(' ')),
    `${p.free}`,
    `${p.claimed}`,
    `${p.unavailable}`,
    tags(p),
  ]);
  const why = json.pools.flatMap((p) =>
    p.devices.filter((d) => d.state !== 'free').map((d) => [d.address, d.state, safeBlock(d.reason ?? '')]),
  );
  const left = json.left_out.map((d) => [d.address, warn('left out'), d.reason]);
  const text = [
    table(['AT', 'IDS', 'TYPE', 'NUMA', 'NETWORK', 'CLASS', 'FREE', 'CLAIMED', 'UNAVAILABLE', 'TAGS'], rows),
    table(
      ['NETWORK', 'FREE', 'CLAIMED', 'UNAVAILABLE'],
      json.networks.map((n) => [network(n.physical_network), `${n.free}`, `${n.claimed}`, `${n.unavailable}`]),
    ),
    table(['DEVICE', 'STATE', 'WHY'], [...why, ...left]),
  ].filter((t) => t !== '');
  return { json, text: text.join('\n'), none: 'No device is offered\n', warnings };
}

const tags = ({ keys }: PoolReport): string =>
  safeBlock(
    Object.entries(keys)
      .filter(([k, v]) => !SHOWN.has(k) && USUAL[k] !== v)
      .map(([k, v]) => `${k}=${typeof v === 'string' ? v : JSON.stringify(v)}`)
      .join(' '),
  );
