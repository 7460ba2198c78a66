/**
 * A killed command leaves a device on its host driver, and the host takes it into use before anybody comes by: routes
 * through it, mounts it, or a guest opens it on VFIO. Whatever way the next one comes, nothing that is in use is taken
 * from its driver; what is kept back is named, and is put right once the use has ended.
 */

import { readlinkSync } from 'node:fs';
import { expect, test } from 'vitest';
import { NOT_ASKED } from '../../src/actions/inGuest.ts';
import { fixStatus } from '../../src/actions/statusFix.ts';
import type { Host } from '../../src/host/host.ts';
import { EVER } from '../patience.ts';
import { describeSim, inPairs, type SimHost, STORM, until, useSimHosts } from './simhost.ts';
import { come, expectWhole, type Facts, WAYS, type Way } from './ways.ts';
import { bookText, journalled, KINDS, type Kind, snapshot, WORLD } from './world.ts';

const sims = useSimHosts();
const OPTIONS = { allowed: new Set<never>(), deadlineMs: EVER, dryRun: false };
const HEAD = 'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n';
const encoded = (text: string): string =>
  text.replace(/[%\s\0=]/g, (c) => `%${c.charCodeAt(0).toString(16).padStart(2, '0')}`);

function driverOf(sim: SimHost, address: string): string | null {
  try {
    return (
      readlinkSync(sim.path(`sys/bus/pci/devices/${address}/driver`))
        .split('/')
        .at(-1) ?? null
    );
  } catch {
    return null;
  }
}

type Used = { address: string; driver: string };

/** The host takes every device that it can into use, each in the way of its driver. */
function takeIntoUse(sim: SimHost, addresses: readonly string[]): Used[] {
  let routes = HEAD;
  const used: Used[] = [];
  for (const [n, address] of addresses.entries()) {
    const driver = driverOf(sim, address);
    if (driver === null) continue;
    used.push({ address, driver });
    if (driver === 'vfio-pci') {
      const group = readlinkSync(sim.path(`sys/bus/pci/devices/${address}/iommu_group`))
        .split('/')
        .at(-1);
      sim.ctl(`hold ${900 + n} qemu /dev/vfio/${group}`);
      continue;
    }
    const home = `sys/devices/pci${address.slice(0, address.lastIndexOf(':'))}/${address}/net/eth${n}`;
    sim.ctl(`dir ${home}`, `link sys/class/net/eth${n} ${'../'.repeat(3)}${home}`);
    routes += `${[`eth${n}`, '00000000', '0100000A', '0003', '0', '0', '0', '00000000', '0', '0', '0'].join('\t')}\n`;
  }
  sim.ctl(`file proc/net/route ${encoded(routes)}`);
  return used;
}

function endUse(sim: SimHost, addresses: readonly string[], used: readonly Used[]): void {
  sim.ctl(`file proc/net/route ${encoded(HEAD)}`);
  for (const [n, address] of addresses.entries()) {
    const of = used.find((u) => u.address === address);
    if (of?.driver !== 'vfio-pci') continue;
    const group = readlinkSync(sim.path(`sys/bus/pci/devices/${address}/iommu_group`))
      .split('/')
      .at(-1);
    sim.ctl(`drop ${900 + n} /dev/vfio/${group}`);
  }
}

/** Every device of the kind, the VFs that are there now too. */
function devicesOf(sim: SimHost, kind: Kind): string[] {
  const vfs = sim.run('vf', 'list', '-j').json as unknown as { vfs: { address: string; parent_addr: string }[] };
  return [...kind.devices, ...vfs.vfs.filter((v) => kind.devices.includes(v.parent_addr)).map((v) => v.address)];
}

async function measure(kind: Kind): Promise<Facts> {
  const sim = await sims.start(WORLD);
  const host = sim.host();
  const original = snapshot(sim);
  await kind.setup(host);
  const [before, booksBefore] = [snapshot(sim), bookText(host)];
  const from = sim.count().changes;
  await sim.spawn(kind.command, kind.input).ended;
  const changes = sim.changes().slice(from);
  const [after, booksAfter] = [snapshot(sim), bookText(host)];
  await sim.stop();
  return { changes, original, before, after, booksBefore, booksAfter };
}

async function usedOnce(kind: Kind, facts: Facts, nth: number, way: Way): Promise<void> {
  const sim = await sims.start(WORLD);
  const host: Host = sim.host();
  await kind.setup(host);
  sim.ctl(`fault change * kill count=1 skip=${nth}`);
  await sim.spawn(kind.command, kind.input).ended;
  sim.ctl('clear');
  await until(() => sim.hung().length === 0, 'nothing hangs');
  const addresses = devicesOf(sim, kind);
  const used = takeIntoUse(sim, addresses);
  const from = sim.journal().length;
  await come(way, kind, host).catch((e: Error & { exit?: number }) => {
    // Refused by a guard, not viable, not ours, or a release that named what it kept: never an undo that failed.
    expect([3, 4, 5, undefined], e.message).toContain(e.exit);
  });
  const writes = sim.journal().slice(from);
  for (const { address, driver } of used) {
    expect(writes, `${address} was in use`).not.toContain(`sys/bus/pci/drivers/${driver}/unbind=${address}`);
    expect(driverOf(sim, address), `${address} was in use`).toBe(driver);
  }
  for (const e of journalled(host).entries)
    if (e.mark === null && e.left.length > 0) expect(e.left.join()).toMatch(/default route|has \/dev\/vfio|in use/);
  endUse(sim, addresses, used);
  await fixStatus(host, OPTIONS, NOT_ASKED);
  expectWhole(sim, host, facts);
  await sim.stop();
}

describeSim('taken into use between kill and recovery: nothing is taken', () => {
  let tried = 0;
  for (const kind of KINDS) {
    test(kind.name, async () => {
      const facts = await measure(kind);
      // Between two writes to sysfs the world is the same.
      const points = facts.changes.flatMap((path, nth) =>
        path.startsWith('sys/') || nth === facts.changes.length - 1 ? [nth] : [],
      );
      const cases = points.flatMap((nth, i) =>
        (STORM ? WAYS : [WAYS[i % WAYS.length] ?? 'hook']).map((way) => async () => {
          try {
            await usedOnce(kind, facts, nth, way);
            tried += 1;
          } catch (e) {
            throw new Error(
              `${kind.name}, killed before change ${nth + 1} (${facts.changes[nth]}), then used, then ${way}: ${(e as Error).message}`,
              { cause: e },
            );
          }
        }),
      );
      await inPairs(cases);
    });
  }

  test('in all', () => {
    process.stdout.write(`taken into use: ${tried} times\n`);
    expect(tried).toBeGreaterThan(50);
  });
});
