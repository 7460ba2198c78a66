import { type ClaimWish, tryClaim } from '../actions/claim.ts';
import { HostdevError } from '../errors.ts';
import type { Answer, Invocation } from './command.ts';
import { setupOptions } from './setupInput.ts';
import { plain, table } from './table.ts';

/** `hostdev claim REQUEST -n [--numa N,…] [--sockets N:S,…] [--policy P] [--group-policy none|isolate] [--spread]` */
export async function claim(invocation: Invocation): Promise<Answer> {
  if (!invocation.options.dryRun)
    throw new HostdevError('HOSTDEV_USAGE', 'Claims are not kept yet: that comes with a later release', {
      hint: 'Give -n to see which devices the request would get.',
    });
  const wish = readWish(invocation);
  const { warnings, ...json } = await tryClaim(invocation.host, await setupOptions(invocation), wish);
  const rows = json.requests.flatMap((r) =>
    r.devices.map((d) => [
      plain(r.alias_name ?? '-'),
      d.address,
      `${d.vendor_id ?? '????'}:${d.product_id ?? '????'}`,
      d.dev_type.replace('type-', ''),
      `${d.numa_node ?? '-'}`,
      plain(d.provider ?? '-'),
    ]),
  );
  const text =
    rows.length === 0
      ? 'It asks for no device\n'
      : table(['ALIAS', 'ADDRESS', 'IDS', 'TYPE', 'NUMA', 'PROVIDER'], rows);
  return { json, text, warnings };
}

function readWish({ words, own }: Invocation): ClaimWish {
  const text = (name: string): string | null => (typeof own[name] === 'string' ? own[name] : null);
  const group = text('group-policy');
  if (group !== null && group !== 'none' && group !== 'isolate')
    throw new HostdevError('HOSTDEV_USAGE', `--group-policy ${group}: there are none and isolate`);
  return {
    request: words[0] ?? '',
    policy: text('policy'),
    place: { numaCells: nodes(text('numa')), hostCells: sockets(text('sockets')) },
    isolate: group === 'isolate',
    spread: own.spread === true,
  };
}

/** Node and socket numbers of Linux are small (MAX_NUMNODES is 1024 at most). */
const NUMBER = /^\d{1,4}$/;

function nodes(list: string | null): number[] {
  const words = list === null ? [] : list.split(',').map((w) => w.trim());
  if (!words.every((w) => NUMBER.test(w)))
    throw new HostdevError('HOSTDEV_USAGE', `--numa ${list}: host NUMA nodes are expected`, {
      hint: 'Write --numa 0 or --numa 0,1.',
    });
  return [...new Set(words.map(Number))];
}

function sockets(list: string | null): { id: number; socket: number }[] {
  const pairs = list === null ? [] : list.split(',').map((w) => w.trim().split(':'));
  const cells = pairs.map(([id = '', socket = '', ...more]) => {
    if (!NUMBER.test(id) || !NUMBER.test(socket) || more.length > 0)
      throw new HostdevError('HOSTDEV_USAGE', `--sockets ${list}: NODE:SOCKET pairs are expected`, {
        hint: 'Write --sockets 0:0,1:0,2:1,3:1.',
      });
    return { id: Number(id), socket: Number(socket) };
  });
  if (new Set(cells.map((c) => c.id)).size < cells.length)
    throw new HostdevError('HOSTDEV_USAGE', `--sockets ${list}: a node is there twice`);
  return cells;
}
