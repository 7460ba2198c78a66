/** How a command over pools is told what is wanted and where the guest is. */
import type { ClaimWish } from '../actions/claim.ts';
import { HostdevError } from '../errors.ts';
import { quote } from '../text/safe.ts';
import type { Invocation } from './command.ts';

/** The options of `claim` as typed. Raises HOSTDEV_USAGE. */
export function readWish(request: string, own: Invocation['own']): ClaimWish {
  const text = (name: string): string | null => (typeof own[name] === 'string' ? own[name] : null);
  const group = text('group-policy');
  if (group !== null && group !== 'none' && group !== 'isolate')
    throw new HostdevError('HOSTDEV_USAGE', `--group-policy ${quote(group)}: there are none and isolate`);
  return {
    request,
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
    throw new HostdevError('HOSTDEV_USAGE', `--numa ${quote(list)}: host NUMA nodes are expected`, {
      hint: 'Write --numa 0 or --numa 0,1.',
    });
  return [...new Set(words.map(Number))];
}

function sockets(list: string | null): { id: number; socket: number }[] {
  const pairs = list === null ? [] : list.split(',').map((w) => w.trim().split(':'));
  const cells = pairs.map(([id = '', socket = '', ...more]) => {
    if (!NUMBER.test(id) || !NUMBER.test(socket) || more.length > 0)
      throw new HostdevError('HOSTDEV_USAGE', `--sockets ${quote(list)}: NODE:SOCKET pairs are expected`, {
        hint: 'Write --sockets 0:0,1:0,2:1,3:1.',
      });
    return { id: Number(id), socket: Number(socket) };
  });
  if (new Set(cells.map((c) => c.id)).size < cells.length)
    throw new HostdevError('HOSTDEV_USAGE', `--sockets ${quote(list)}: a node is there twice`);
  return cells;
}
