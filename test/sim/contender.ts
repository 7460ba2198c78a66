/**
 * One of many processes that want the same devices (contention.test.ts starts it, bundled): a guest whose hook
 * prepares, whose QEMU holds the groups, whose hook releases; or an admin who binds and unbinds. Ends with 1 and a line
 * on stderr when something is not as it must be; prints its tally. argv: root, number, rounds, groups as JSON (name of
 * dev/vfio/<n> to its addresses).
 */
import { closeSync, existsSync, openSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { bindDevices } from '../../src/actions/bind.ts';
import { unbindDevices } from '../../src/actions/unbind.ts';
import { loadNative } from '../../src/addon/load.ts';
import { readBinding } from '../../src/binding/books.ts';
import { readDomainDevices } from '../../src/domain/hostDevices.ts';
import { readDomain } from '../../src/domain/xml/domain.ts';
import { HostdevError, isErrno } from '../../src/errors.ts';
import { prepareDomain } from '../../src/hook/prepare.ts';
import { releaseDomain } from '../../src/hook/release.ts';
import { Host } from '../../src/host/host.ts';
import { domainXml, NO_POLICY } from '../mock/hosts.ts';
import { EVER } from '../patience.ts';

const [, , root = '', numberText = '0', roundsText = '1', groupsText = '{}'] = process.argv;
const number = Number(numberText);
const groups = Object.entries(JSON.parse(groupsText) as Record<string, string[]>);
const host = new Host(root, loadNative());
/** Longer than any wait should be: passing it is a deadlock. */
const DEADLINE_MS = EVER;
const options = { allowed: new Set<never>(), deadlineMs: DEADLINE_MS, dryRun: false };
const tally = { held: 0, refused: 0, bound: 0, unbound: 0 };

/** A small generator of our own, so that a round can be repeated. */
let seed = number * 7919 + 17;
function below(n: number): number {
  seed = (seed * 1103515245 + 12345) % 2147483648;
  return Math.floor((seed / 2147483648) * n);
}

function some(): [string, string[]][] {
  const wanted = 1 + below(3);
  const from = below(groups.length);
  return Array.from({ length: wanted }, (_, i) => groups[(from + i * 2) % groups.length] ?? ['', []]);
}

const sleep = (ms: number): Promise<void> => new Promise((r) => setTimeout(r, ms));

function driverOf(address: string): string {
  try {
    return (
      readlinkSync(join(root, 'sys/bus/pci/devices', address, 'driver'))
        .split('/')
        .at(-1) ?? ''
    );
  } catch {
    return 'none';
  }
}

/** What may be said to somebody who came too late: the device is another's, or its group is. */
const expected = (e: unknown): boolean =>
  e instanceof HostdevError &&
  ['HOSTDEV_IN_USE', 'HOSTDEV_GUARD', 'HOSTDEV_NOT_OURS', 'HOSTDEV_GROUP_NOT_VIABLE'].includes(e.code);

/** As libvirt and QEMU do: a group that another guest has is refused (EBUSY), else it is ours until we close it. */
function openGroups(names: string[]): number[] | null {
  const fds: number[] = [];
  for (const name of names) {
    try {
      fds.push(openSync(join(root, 'dev/vfio', name), 'r+'));
    } catch (e) {
      for (const fd of fds) closeSync(fd);
      // ENOENT and EPERM: the admin took it back before we came.
      if (isErrno(e, 'EBUSY', 'ENOENT', 'EPERM')) return null;
      throw e;
    }
  }
  return fds;
}

async function guest(round: number): Promise<void> {
  const wanted = some();
  const addresses = [...new Set(wanted.flatMap(([, list]) => list))];
  const uuid = `${String(number).padStart(8, '0')}-0000-4000-8000-${String(round).padStart(12, '0')}`;
  const xml = domainXml(
    `guest${number}`,
    uuid,
    addresses.map((address) => ({ address })),
  );
  const domain = readDomainDevices(readDomain(xml, 'contender'));
  try {
    await prepareDomain(host, domain, new Set(), options, NO_POLICY);
  } catch (e) {
    if (!expected(e)) throw e;
    tally.refused += 1;
    return;
  }
  const fds = openGroups([...new Set(wanted.map(([name]) => name))]);
  if (fds === null) tally.refused += 1;
  else {
    tally.held += 1;
    for (let i = 0; i < 3; i += 1) {
      await sleep(below(4));
      for (const a of addresses) {
        if (driverOf(a) !== 'vfio-pci') throw new Error(`${a} is on ${driverOf(a)} while guest${number} holds it`);
        const owners = readBinding(host, a)?.holds.map((h) => h.owner) ?? [];
        if (!owners.includes(`domain:${uuid}`))
          throw new Error(`guest${number} holds ${a}, and the books say ${owners}`);
      }
    }
    for (const fd of fds) closeSync(fd);
    // The kernel tells the file system of a close a little later.
    while (existsSync(join(root, 'proc', `${process.pid}`))) await sleep(1);
  }
  const { failures } = await releaseDomain(host, `domain:${uuid}`, addresses, options);
  if (failures[0] !== undefined) throw failures[0].error;
}

async function admin(): Promise<void> {
  const addresses = [...new Set(some().flatMap(([, list]) => list))];
  for (const [act, key] of [
    [() => bindDevices(host, addresses, null, options), 'bound'],
    [() => unbindDevices(host, addresses, false, options), 'unbound'],
  ] as const) {
    try {
      await act();
      tally[key] += 1;
    } catch (e) {
      if (!expected(e)) throw e;
      tally.refused += 1;
    }
  }
}

try {
  for (let round = 0; round < Number(roundsText); round += 1) await (number % 4 === 3 ? admin() : guest(round));
  process.stdout.write(JSON.stringify(tally));
} catch (e) {
  process.stderr.write(`contender ${number}: ${(e as Error).stack}\n`);
  process.exitCode = 1;
}
