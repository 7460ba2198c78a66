import { type Guest, type GuestDevice, listGuests, showGuest } from '../actions/guestList.ts';
import { safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { pairs, table } from './table.ts';

const IN: Record<GuestDevice['in'], string> = { both: '', live: 'only now', kept: 'only from its next start' };

const or = (v: string | number | null): string => (v === null ? '-' : safeBlock(`${v}`));

const state = (g: Guest): string => `${g.active ? 'runs' : 'off'}${g.persistent ? '' : ', transient'}`;

/** Nearest first: a guest's memory may be on several nodes. */
const distance = (d: GuestDevice): string =>
  d.numa.length === 0 ? '-' : d.numa.map((n) => `${n.distance ?? '?'}`).join(',');

const cells = (d: GuestDevice): string[] => [
  d.address,
  d.network === null ? d.kind : `${d.kind} (network ${safeBlock(d.network)})`,
  d.managed ? 'yes' : 'no',
  or(d.driver),
  or(d.iommu_group),
  or(d.numa_node),
  distance(d),
  or(d.prepared_by),
  IN[d.in],
];

const COLUMNS = ['DEVICE', 'AS', 'MANAGED', 'DRIVER', 'GROUP', 'NUMA', 'DISTANCE', 'PREPARED BY', 'WHEN'];

/** `hostdev guest list` */
export async function guestList({ host, connect }: Invocation): Promise<Answer> {
  const { warnings, ...json } = await listGuests(host, connect);
  const rows = json.guests.flatMap((g) => {
    const own = [safeBlock(g.name), state(g)];
    const devices = g.devices?.map(cells) ?? [['not known']];
    const wanted = g.networks.map((n) => [`a device of network ${safeBlock(n)}`]);
    const all = [...devices, ...wanted];
    return all.length === 0 ? [[...own, '-']] : all.map((d) => [...own, ...d]);
  });
  return { json, text: table(['GUEST', 'STATE', ...COLUMNS], rows), none: 'libvirt has no guests\n', warnings };
}

/** `hostdev guest show NAME|UUID` */
export async function guestShow({ host, connect, words }: Invocation): Promise<Answer> {
  const { warnings, ...json } = await showGuest(host, connect, words[0] ?? '');
  const { guest: g, libvirt } = json;
  const text = [
    pairs([
      ['Name', safeBlock(g.name)],
      ['UUID', g.uuid],
      ['State', state(g)],
      ['libvirt', `${libvirt.daemon} at ${safeBlock(libvirt.uri)}`],
      ['Hypervisor', libvirt.hypervisor ?? 'not known'],
      ...g.networks.map((n) => ['Gets a device of', `network ${safeBlock(n)}`] as const),
    ]),
    g.devices === null
      ? 'Its devices are not known\n'
      : g.devices.length === 0
        ? 'No device of this host\n'
        : table(COLUMNS, g.devices.map(cells)),
  ];
  return { json, text: text.join('\n'), warnings };
}
