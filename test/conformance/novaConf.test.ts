/**
 * The scenarios of Nova's verdicts once more, written as a nova.conf and a saved inventory: `config check` finds a
 * mistake exactly where `simulate` (held against Nova in nova.test.ts) finds an error, its specs take the same devices,
 * and `pool list` shows the same pools.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { tryClaim } from '../../src/actions/claim.ts';
import { checkConfig } from '../../src/actions/configCheck.ts';
import { listPools } from '../../src/actions/poolList.ts';
import { FsReader } from '../../src/addon/fsReader.ts';
import { Host } from '../../src/host/host.ts';
import { compareAddresses, isAddress } from '../../src/pci/address.ts';
import { parseScenario } from '../../src/simulate/scenario.ts';
import { simulate, type Verdict } from '../../src/simulate/simulate.ts';

type Device = { address: string; dev_type?: string; totalvfs?: number; capabilities?: object; parent_ifname?: string };
type Case = {
  id: string;
  device_spec: unknown[];
  alias: unknown[];
  devices: Device[];
  sysfs?: object;
  netdevs?: object;
  real_sysfs_ids?: boolean;
  request?: string;
  numa_cells?: number[] | null;
  host_cells?: { id: number; socket: number | null }[];
  affinity_policy?: string | null;
  group_policy?: string | null;
  force?: boolean;
  config?: { report_in_placement?: boolean; pci_in_placement?: boolean };
};

const cases = readFileSync(join(import.meta.dirname, 'nova-pci.jsonl'), 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => (JSON.parse(line) as { case: Case }).case);

/**
 * A saved inventory has no sysfs, interfaces and VPD, only addresses that can be, each once, and text that fits in a
 * line of nova.conf.
 */
const isWritable = (c: Case): boolean =>
  !c.sysfs &&
  !c.netdevs &&
  !c.real_sysfs_ids &&
  c.devices.every((d) => isAddress(d.address) && !d.capabilities && !d.parent_ifname) &&
  new Set(c.devices.map((d) => d.address)).size === c.devices.length &&
  [...c.device_spec, ...c.alias].every((v) => typeof v !== 'string' || !/[\r\n]/.test(v));

const folder = mkdtempSync(join(tmpdir(), 'hostdev-vectors-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Quotes around all of it, so that oslo takes neither blanks nor quotes of the value itself. */
const line = (name: string, value: unknown): string =>
  `${name} = '${(typeof value === 'string' ? value : JSON.stringify(value)).replaceAll('$', '$$$$')}'\n`;

function written(c: Case) {
  const file = join(folder, `${c.id}.conf`);
  const switches = `[filter_scheduler]\npci_in_placement = ${c.config?.pci_in_placement === true}\n`;
  const specs = c.device_spec.map((s) => line('device_spec', s)).join('');
  const aliases = c.alias.map((a) => line('alias', a)).join('');
  writeFileSync(
    file,
    `[pci]\nreport_in_placement = ${c.config?.report_in_placement === true}\n${specs}${aliases}${switches}`,
  );
  const devices = c.devices.map(({ dev_type = 'type-PCI', totalvfs, ...d }) => ({
    ...d,
    dev_type,
    sriov_totalvfs: totalvfs ?? (dev_type === 'type-PF' ? 4 : null),
  }));
  const bytes = Buffer.from(JSON.stringify({ schema: 1, devices }));
  return { config: [file], inventory: { bytes, file: 'i.json', maxBytes: 1e6 } };
}

const host = new Host(folder, new FsReader());
const verdict = (c: Case): Verdict =>
  JSON.parse(JSON.stringify(simulate(parseScenario(Buffer.from(JSON.stringify(c)))).verdict)) as Verdict;

const some = cases.filter(isWritable);
/** Pools come in the order in which devices are reported, which for an inventory is that of addresses. */
const isSorted = (c: Case): boolean =>
  c.devices.every((d, n) => n === 0 || compareAddresses(c.devices[n - 1]?.address ?? '', d.address) < 0);

const asking = some.filter((c) => c.request !== undefined && isSorted(c) && !c.force);

test('most scenarios can be written so', () => {
  expect(some.length).toBeGreaterThan(200);
  expect(some.filter(isSorted).length).toBeGreaterThan(120);
  expect(asking.length).toBeGreaterThan(60);
});

describe('as nova.conf', () => {
  test.each(some.map((c) => [c.id, c] as const))('%s', async (_, c) => {
    const options = written(c);
    const ours = await checkConfig(host, options);
    const theirs = verdict(c);
    const fatal = ours.mistakes.filter((m) => m.fatal);
    const isPlacement = theirs.placement !== undefined && theirs.placement.error !== null;
    expect(fatal.some((m) => m.key.startsWith('alias'))).toBe(theirs.alias_error !== null);
    expect(fatal.some((m) => m.key.startsWith('device_spec'))).toBe(theirs.spec_error !== null || isPlacement);
    if (fatal.length > 0 || theirs.devices === undefined) return;
    const takes = ours.specs.flatMap((s) => s.devices.map((address) => [address, s.index]));
    const matched = theirs.devices.filter((d) => d.spec_index !== null).map((d) => [d.address, d.spec_index]);
    expect(takes.sort()).toEqual(matched.sort());
    if (!isSorted(c) || theirs.pools === undefined) return;
    const pools = await listPools(host, options, null);
    expect(pools.pools.map((p) => ({ ...p.keys, count: p.total, devices: p.devices.map((d) => d.address) }))).toEqual(
      theirs.pools.map(({ _has_rp: _, ...p }) => p),
    );
  });
});

describe('claim -n', () => {
  test.each(asking.map((c) => [c.id, c] as const))('%s', async (_, c) => {
    const theirs = verdict(c);
    const [step] = theirs.steps ?? [];
    const answer = await tryClaim(
      host,
      written(c),
      {
        request: c.request ?? '',
        place: { numaCells: c.numa_cells ?? [], hostCells: c.host_cells ?? [] },
        policy: c.affinity_policy ?? null,
        isolate: c.group_policy === 'isolate',
        spread: false,
      },
      null,
    ).then(
      (a) => a.requests.map((r) => r.devices.map((d) => d.address)),
      (e: unknown) => e,
    );
    if (theirs.alias_error !== null || theirs.spec_error !== null)
      expect(answer).toMatchObject({ code: 'HOSTDEV_CONFIG' });
    else if (step === undefined || step.stage === 'done') expect(answer).toEqual(step?.devices_by_request);
    else expect(answer).toMatchObject({ code: step.error?.code ?? 'HOSTDEV_NO_CAPACITY' });
  });
});
