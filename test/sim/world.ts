/** The host that the fault tests run on, its transactions, and what is looked at afterwards. */
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { bindDevices } from '../../src/actions/bind.ts';
import { unbindDevices } from '../../src/actions/unbind.ts';
import { createVfs, removeVfs } from '../../src/actions/vf.ts';
import { isGuest, readBooks } from '../../src/binding/books.ts';
import type { Guard } from '../../src/binding/guards.ts';
import { type JournalEntry, readJournal } from '../../src/binding/journal.ts';
import { readDomainDevices } from '../../src/domain/hostDevices.ts';
import { readDomain } from '../../src/domain/xml/domain.ts';
import { prepareDomain } from '../../src/hook/prepare.ts';
import { releaseDomain } from '../../src/hook/release.ts';
import type { Host } from '../../src/host/host.ts';
import { domainXml, NO_POLICY, UUID_A } from '../mock/hosts.ts';
import { EVER } from '../patience.ts';
import type { HostDescription } from '../scenarios/host.ts';
import type { SimHost } from './simhost.ts';

/**
 * Two NICs in one group, the first with an override of its own; a device no driver knows; two NICs alone, the second
 * put on VFIO by somebody else; a PF without VFs.
 */
export const A = '0000:30:00.0';
export const B = '0000:30:00.1';
export const C = '0000:31:00.0';
export const D = '0000:32:00.0';
export const V = '0000:33:00.0';
export const PF = '0000:34:00.0';
/** The VFs that PF gets, each in a group of its own. */
const VFS = ['0000:34:10.0', '0000:34:10.2'];
const [VF0 = ''] = VFS;

export const WORLD: HostDescription = {
  drivers: [
    { name: 'e1000e', module: 'e1000e', ids: ['8086:10d3'] },
    { name: 'igb', module: 'igb', ids: ['8086:10c9'], sriov: true },
    { name: 'igbvf', module: 'igbvf', ids: ['8086:10ca'] },
    { name: 'vfio-pci', module: 'vfio_pci', ids: [], vfio: true },
  ],
  devices: [
    { address: A, ids: '8086:10d3', group: 20, driver: 'e1000e', override: 'e1000e' },
    { address: B, ids: '8086:10d3', group: 20, driver: 'e1000e' },
    { address: C, ids: '1234:11e8', class: '00ff00', group: 21 },
    { address: D, ids: '8086:10d3', group: 22, driver: 'e1000e' },
    { address: V, ids: '8086:10d3', group: 23, driver: 'vfio-pci', override: 'vfio-pci' },
    { address: PF, ids: '8086:10c9', group: 24, totalVfs: 4, vfIds: '8086:10ca', vfGroup: 30, driver: 'igb' },
  ],
};

const ALL = WORLD.devices.map((d) => d.address);

/**
 * Driver and override of every device, as the kernel shows them: "e1000e (null)"; of a PF also its count, its autoprobe
 * and each VF, which the journal knows as one.
 */
export type Snapshot = Record<string, string>;

export function snapshot(sim: SimHost): Snapshot {
  const now = states(sim);
  const text = (attribute: string): string =>
    readFileSync(sim.path(`sys/bus/pci/devices/${PF}/${attribute}`), 'utf8').trim();
  const vfs = Object.entries(now).filter(([a]) => a !== deviceOf(a));
  const sriov = `numvfs ${text('sriov_numvfs')} autoprobe ${text('sriov_drivers_autoprobe')}`;
  return {
    ...Object.fromEntries(ALL.map((a) => [a, now[a] ?? 'gone'])),
    [PF]: [now[PF], sriov, ...vfs.map(([a, state]) => `${a} ${state}`)].join(', '),
  };
}

/** The device that stands for another in a snapshot and in the journal: a VF's PF. */
export const deviceOf = (address: string): string => (ALL.includes(address) ? address : PF);

/** The state of every device that is there, VFs too. */
function states(sim: SimHost): Snapshot {
  const driver = (address: string): string => {
    try {
      return (
        readlinkSync(sim.path(`sys/bus/pci/devices/${address}/driver`))
          .split('/')
          .at(-1) ?? ''
      );
    } catch {
      return 'none';
    }
  };
  const override = (address: string): string =>
    readFileSync(sim.path(`sys/bus/pci/devices/${address}/driver_override`), 'utf8').trim();
  const there = readdirSync(sim.path('sys/bus/pci/devices')).sort();
  return Object.fromEntries(there.map((a) => [a, `${driver(a)} ${override(a)}`]));
}

const options = (deadlineMs: number, ...allowed: Guard[]) => ({ allowed: new Set(allowed), deadlineMs, dryRun: false });

const xml = domainXml('guest', UUID_A, [{ address: A }, { address: B }]);
export const DOMAIN_XML = Buffer.from(xml).toString();
const domain = () => readDomainDevices(readDomain(xml, 'domain guest'));

async function release(host: Host, ms: number): Promise<void> {
  const { failures, devices } = await releaseDomain(host, `domain:${UUID_A}`, [A, B], options(ms));
  if (failures[0] !== undefined) throw failures[0].error;
  const kept = devices.find((d) => d.outcome === 'kept');
  if (kept !== undefined) throw new Error(`${kept.address} was kept: ${kept.reason}`);
}

export type Kind = {
  name: string;
  /** What must have happened before, without faults. */
  setup(host: Host): Promise<unknown>;
  /** The transaction, in this process. Raises what it comes to. */
  run(host: Host, deadlineMs: number): Promise<unknown>;
  /** The same as a command, with its stdin. */
  command: string[];
  input?: string;
  devices: string[];
  /** All of its devices or none. A way back is a device's own: each that could go home has. */
  atomic: boolean;
  /** Where the devices are in the books: after it, before it, or never. */
  booked: 'after' | 'before' | 'never';
  /** Of many like it: not every fault at every write, unless HOSTDEV_SIM_FULL=1. */
  many?: boolean;
  /** What the test itself changed in `setup` is put back. */
  home?(host: Host): unknown;
  /** Whether a host driver claims the device is the kernel's affair: without one it is free, which is said. */
  mayStayFree?: boolean;
};

const bind =
  (words: string[]) =>
  (host: Host, ms = EVER) =>
    bindDevices(host, words, null, options(ms));
const unbind =
  (words: string[], toHost = false) =>
  (host: Host, ms = EVER) =>
    unbindDevices(host, words, toHost, options(ms));
const nothing = async (): Promise<void> => {};
const create =
  (count: number, use: 'vfio' | 'netdev') =>
  (host: Host, ms = EVER) =>
    createVfs(host, PF, count, use, { ...options(ms), recreate: true });

const setAutoprobe = (host: Host, text: '0' | '1'): void =>
  writeFileSync(`${host.root}/sys/bus/pci/devices/${PF}/sriov_drivers_autoprobe`, text);

/** Two VFs, the first the admin's on VFIO, the second the host's. */
async function mixedVfs(host: Host): Promise<void> {
  await create(2, 'netdev')(host);
  await bindDevices(host, [VF0], null, options(EVER));
}
const bindPf = (host: Host, ms = EVER) => bindDevices(host, [PF], null, options(ms, 'vfs'));

export const KINDS: Kind[] = [
  {
    name: 'bind of one',
    setup: nothing,
    run: bind([D]),
    command: ['bind', D],
    devices: [D],
    atomic: true,
    booked: 'after',
  },
  {
    name: 'bind of a group and another',
    setup: nothing,
    run: bind([A, B, C]),
    command: ['bind', A, B, C],
    devices: [A, B, C],
    atomic: true,
    booked: 'after',
  },
  {
    name: 'unbind of one',
    setup: bind([D]),
    run: unbind([D]),
    command: ['unbind', D],
    devices: [D],
    atomic: true,
    booked: 'before',
  },
  {
    name: 'unbind of several',
    setup: bind([A, B, C]),
    run: unbind([A, B, C]),
    command: ['unbind', A, B, C],
    devices: [A, B, C],
    atomic: true,
    booked: 'before',
  },
  {
    name: 'unbind --to-host',
    setup: nothing,
    run: unbind([V], true),
    command: ['unbind', '--to-host', V],
    devices: [V],
    atomic: true,
    booked: 'never',
    mayStayFree: true,
  },
  {
    name: 'hook prepare',
    setup: nothing,
    run: (host, ms) => prepareDomain(host, domain(), new Set(), options(ms), NO_POLICY),
    command: ['hook', 'run', 'guest', 'prepare', 'begin', '-'],
    input: DOMAIN_XML,
    devices: [A, B],
    atomic: true,
    booked: 'after',
  },
  {
    name: 'hook release',
    setup: (host) => prepareDomain(host, domain(), new Set(), options(EVER), NO_POLICY),
    run: release,
    command: ['hook', 'run', 'guest', 'release', 'end', '-'],
    input: DOMAIN_XML,
    devices: [A, B],
    atomic: false,
    booked: 'before',
  },
  {
    name: 'vf create for VFIO',
    setup: nothing,
    run: create(2, 'vfio'),
    command: ['vf', 'create', PF, '--count', '2', '--for', 'vfio'],
    devices: [PF],
    many: true,
    atomic: true,
    booked: 'after',
  },
  {
    name: 'vf create for the host',
    // The host itself wants fresh VFs driverless.
    setup: async (host) => setAutoprobe(host, '0'),
    run: create(2, 'netdev'),
    command: ['vf', 'create', PF, '--count', '2', '--for', 'netdev'],
    devices: [PF],
    many: true,
    atomic: true,
    booked: 'after',
    home: (host) => setAutoprobe(host, '1'),
  },
  {
    name: 'vf create through 0',
    setup: mixedVfs,
    run: create(1, 'vfio'),
    command: ['vf', 'create', PF, '--count', '1', '--for', 'vfio', '--recreate'],
    devices: [PF],
    many: true,
    atomic: true,
    booked: 'after',
  },
  {
    name: 'vf remove',
    setup: mixedVfs,
    run: (host, ms) => removeVfs(host, PF, options(ms)),
    command: ['vf', 'remove', PF],
    devices: [PF],
    many: true,
    atomic: true,
    booked: 'before',
  },
  {
    name: 'bind of a PF with idle VFs',
    setup: mixedVfs,
    run: bindPf,
    command: ['bind', PF, '--allow=vfs'],
    devices: [PF],
    many: true,
    atomic: true,
    booked: 'after',
  },
  {
    name: 'unbind of a PF that lost its VFs',
    setup: async (host) => {
      await mixedVfs(host);
      await bindPf(host);
    },
    run: unbind([PF]),
    command: ['unbind', PF],
    devices: [PF],
    many: true,
    atomic: true,
    booked: 'before',
  },
];

/** The addresses in the journal, those of a transaction that runs left out. */
export function journalled(host: Host): { addresses: string[]; entries: JournalEntry[] } {
  const { entries } = readJournal(host);
  return { addresses: entries.flatMap((e) => e.devices.map((d) => d.address)).sort(), entries };
}

export const booked = (host: Host): string[] => readBooks(host).books.map((b) => b.address);

export type BookText = Record<string, string>;

/** The books, each device with what matters of it. */
export const bookText = (host: Host): BookText =>
  Object.fromEntries(
    readBooks(host).books.map(({ address, holds, before, after, sriov, vf_bindings }) => [
      address,
      JSON.stringify({
        holds: holds.map((h) => h.owner),
        before,
        after,
        sriov,
        vfs: vf_bindings?.map((b) => [b.address, b.holds, b.before]),
      }),
    ]),
  );

/**
 * Lines for what the books say otherwise than the kernel: each of our bindings is on what they say, whatever is on VFIO
 * beside V is in them.
 */
export function booksAgainst(sim: SimHost, host: Host): string[] {
  const now = states(sim);
  const { books } = readBooks(host);
  const wrong = books.flatMap((b) => {
    const said = `${b.after?.driver ?? 'none'} ${b.after?.override ?? '(null)'}`;
    return now[b.address] === said ? [] : [`${b.address}: the books say ${said}, the kernel ${now[b.address]}`];
  });
  const missing = Object.entries(now)
    .filter(([a, state]) => a !== V && state.startsWith('vfio-pci') && !books.some((b) => b.address === a))
    .map(([a, state]) => `${a}: ${state}, and not in the books`);
  return [...wrong, ...missing];
}

/** Brings everything home that hostdev has in its books, and says what is not as in `original` then. */
export async function bringHome(sim: SimHost, host: Host, original: Snapshot, kind?: Kind): Promise<void> {
  const mine = readBooks(host).books;
  const guest = mine.some((b) => b.holds.some(isGuest)) || journalled(host).entries.some(isGuest);
  if (guest) await releaseDomain(host, `domain:${UUID_A}`, [A, B], options(EVER));
  // A device that is only in the journal goes home by being named: whoever has its group's lock puts it right first.
  for (const a of new Set([...journalled(host).addresses, ...booked(host)].filter((x) => x === deviceOf(x)))) {
    await unbindDevices(host, [a], false, options(EVER)).catch((e: Error & { code?: string }) => {
      if (e.code !== 'HOSTDEV_NOT_OURS') throw e;
    });
  }
  if (kind?.devices.includes(PF)) await removeVfs(host, PF, options(EVER));
  await kind?.home?.(host);
  const now = snapshot(sim);
  const wrong = Object.keys(original).filter((a) => now[a] !== original[a]);
  const left = [...booked(host), ...journalled(host).addresses];
  if (wrong.length + left.length > 0)
    throw new Error(
      `not as in the beginning: ${wrong.map((a) => `${a} ${now[a]}, was ${original[a]}`).join('; ')}; left over: ${left}`,
    );
}

/** The next try. What a recovery has brought home by then is no longer ours, and the others are still to go. */
export async function again(kind: Kind, host: Host): Promise<void> {
  try {
    await kind.run(host, 3000);
  } catch (e) {
    if ((e as { code?: string }).code !== 'HOSTDEV_NOT_OURS' || kind.booked !== 'before') throw e;
    const rest = booked(host).filter((a) => kind.devices.includes(a));
    if (rest.length > 0) await unbindDevices(host, rest, false, options(3000));
  }
}
