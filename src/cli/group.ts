import { listGroups, showGroup } from '../actions/inspect.ts';
import { EXIT } from '../errors.ts';
import type { Answer, Invocation } from './command.ts';
import { colours, pairs, table } from './table.ts';

/** `hostdev group list` */
export function groupList({ host }: Invocation): Answer {
  const { groups, warnings } = listGroups(host);
  const { bad, good } = colours(process.stdout);
  const rows = groups.map((g) => [
    `${g.id}`,
    g.type ?? '-',
    g.viable === null ? 'not known' : g.viable ? good('yes') : bad('no'),
    g.devices.join(' ') || '-',
    g.blockers.map((b) => `${b.address} ${b.reason}`).join('; '),
  ]);
  return { json: { groups }, text: table(['GROUP', 'TYPE', 'VIABLE', 'DEVICES', 'BLOCKED BY'], rows), warnings };
}

/** `hostdev group show N|DEV`: exit 3 when it is not viable. */
export function groupShow({ host, words }: Invocation): Answer {
  const { group: g, warnings } = showGroup(host, words[0] ?? '');
  const text = pairs([
    ['Group', `${g.id}`],
    ['Type', g.type ?? 'unknown'],
    ['Viable', g.viable === null ? 'not known' : g.viable ? 'yes' : 'no'],
    ...g.devices.map((d, i) => [i === 0 ? 'Devices' : '', d] as const),
    ...g.blockers.map((b, i) => [i === 0 ? 'Blocked by' : '', `${b.address} ${b.reason}`] as const),
    ...g.reserved_regions.map((r, i) => [i === 0 ? 'Reserved' : '', `${r.start}-${r.end} ${r.type}`] as const),
  ]);
  return { json: { group: g }, text, warnings, exit: g.viable === null ? EXIT.failed : g.viable ? EXIT.done : EXIT.no };
}
