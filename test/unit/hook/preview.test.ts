/**
 * One question, four doors: what would the hook do for this domain now? Hosts, policies, allowances and states of the
 * hook by construction; `hook test`, `domain check`, `domain plan` and at last the hook itself are asked of each, and
 * each must give the answer that the table has.
 */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { bindDevices } from '../../../src/actions/bind.ts';
import { checkDomainXml } from '../../../src/actions/domainCheck.ts';
import { planDomain } from '../../../src/actions/domainPlan.ts';
import { testHook } from '../../../src/actions/hookTest.ts';
import type { Guard } from '../../../src/binding/guards.ts';
import { markStarted } from '../../../src/binding/guests.ts';
import { HOOK_DEFAULTS, UNMANAGED } from '../../../src/config/hookDefaults.ts';
import { ERRORS, type ErrorCode, type HostdevError } from '../../../src/errors.ts';
import { installHook } from '../../../src/hook/install.ts';
import { hookProgram } from '../../../src/hook/program.ts';
import { runHook } from '../../../src/hook/run.ts';
import { domainXml, type SimulatedHost, simulatedHost, UUID_A, UUID_B } from '../../mock/hosts.ts';
import { leaveJournal } from '../../mock/leftJournal.ts';

const VF = '0000:21:10.0';
const PF = '0000:21:00.0';
const NVME = '0000:22:00.0';
const LONE = '0000:26:01.0';
const ABSENT = '0000:77:00.0';
const OPTIONS = { allowed: new Set<never>(), deadlineMs: 30_000, dryRun: false };

type Policy = (typeof UNMANAGED)[number];
type Hook = 'installed' | 'missing' | 'outdated' | 'not executable' | 'no conf';

/** Null: the guest may start. Else what prepare raises. */
type Answer = Extract<ErrorCode, keyof typeof ERRORS> | null;

/** What the hook says of a device that it is to move, by policy, and of one that libvirt moves, whatever the policy. */
type Expected = Record<Policy, Answer> & { managed: Answer };

type Kind = {
  what: string;
  address: string;
  set?: (sim: SimulatedHost) => Promise<unknown> | unknown;
  /** Guards allowed for the device, and for whom. */
  allow?: [guard: string, domain: string][];
  expected: Expected;
  /** The driver for which `bind` binds it; null where it is on VFIO already. */
  driver?: string | null;
};

const mounted = (point: string) => (sim: SimulatedHost) => {
  sim.kernel.links.set('sys/class/block/nvme0n1', '../../devices/pci0000:20/0000:22:00.0/nvme/nvme0/nvme0n1');
  sim.kernel.files.set('sys/class/block/nvme0n1/dev', '259:0\n');
  sim.kernel.files.set('proc/self/mountinfo', `29 1 259:0 / ${point} rw - ext4 /dev/nvme0n1 rw\n`);
};

const call = (sim: SimulatedHost, name: string, uuid: string, address: string, managed: 'yes' | 'no') =>
  runHook(
    sim.host,
    { name, operation: 'prepare', xml: domainXml(name, uuid, [{ address, managed }]) },
    { allowed: new Set(), deadlineMs: 30_000, lockedUuid: null },
  );

/** Another guest was prepared with it and runs. */
const held = async (sim: SimulatedHost): Promise<void> => {
  await call(sim, 'b', UUID_B, VF, 'no');
  sim.kernel.openBy = [{ pid: 7, command: 'qemu-b', path: '/dev/vfio/11' }];
};

/** A bind died after the unbind. */
const killed = ({ host, kernel }: SimulatedHost): void => {
  const from = { driver: 'igbvf', override: null };
  const to = { driver: 'vfio-pci', override: 'vfio-pci' };
  leaveJournal(host, [{ address: VF, group: 11, from, to, override_bytes: '(null)\n' }]);
  Object.assign(kernel.devices.get(VF) ?? {}, { driver: null, override: 'vfio-pci' });
};

const KINDS: Kind[] = [
  {
    what: 'a VF on its host driver',
    address: VF,
    expected: { bind: null, check: 'HOSTDEV_NOT_BOUND', ignore: null, managed: null },
    driver: 'tb_igbvf_vfio_pci',
  },
  {
    what: 'one that the admin has bound',
    address: VF,
    set: (sim) => bindDevices(sim.host, [VF], 'vfio-pci', OPTIONS),
    expected: { bind: null, check: null, ignore: null, managed: null },
    driver: null,
  },
  {
    what: 'one that a guest had which is gone: it is given back, and bound anew',
    address: VF,
    set: async (sim) => {
      await call(sim, 'b', UUID_B, VF, 'no');
      markStarted(sim.host, UUID_B);
    },
    expected: { bind: null, check: 'HOSTDEV_NOT_BOUND', ignore: null, managed: null },
    driver: 'tb_igbvf_vfio_pci',
  },
  {
    what: 'one that a dead command left between two drivers: it is put back first',
    address: VF,
    set: killed,
    expected: { bind: null, check: 'HOSTDEV_NOT_BOUND', ignore: null, managed: null },
    driver: 'tb_igbvf_vfio_pci',
  },
  {
    what: 'one that another guest has',
    address: VF,
    set: held,
    expected: { bind: 'HOSTDEV_IN_USE', check: 'HOSTDEV_IN_USE', ignore: null, managed: 'HOSTDEV_IN_USE' },
  },
  {
    what: 'one that another guest has, whatever is allowed',
    address: VF,
    set: held,
    allow: [
      ['in-use', '*'],
      ['other-owner', '*'],
    ],
    expected: { bind: 'HOSTDEV_IN_USE', check: 'HOSTDEV_IN_USE', ignore: null, managed: 'HOSTDEV_IN_USE' },
  },
  {
    what: 'the root disk',
    address: NVME,
    set: mounted('/'),
    expected: { bind: 'HOSTDEV_GUARD', check: 'HOSTDEV_NOT_BOUND', ignore: null, managed: 'HOSTDEV_GUARD' },
  },
  {
    what: 'the root disk, allowed for this domain',
    address: NVME,
    set: mounted('/'),
    allow: [['disk', 'web']],
    expected: { bind: null, check: 'HOSTDEV_NOT_BOUND', ignore: null, managed: null },
    driver: 'vfio-pci',
  },
  {
    what: 'the root disk, allowed for another domain, and another guard for this one',
    address: NVME,
    set: mounted('/'),
    allow: [
      ['disk', 'db'],
      ['network', 'web'],
    ],
    expected: { bind: 'HOSTDEV_GUARD', check: 'HOSTDEV_NOT_BOUND', ignore: null, managed: 'HOSTDEV_GUARD' },
  },
  {
    what: 'a disk that the host could do without',
    address: NVME,
    set: mounted('/srv'),
    expected: { bind: 'HOSTDEV_GUARD', check: 'HOSTDEV_NOT_BOUND', ignore: null, managed: null },
  },
  {
    what: 'such a disk, allowed by UUID',
    address: NVME,
    set: mounted('/srv'),
    allow: [['disk', UUID_A.toUpperCase()]],
    expected: { bind: null, check: 'HOSTDEV_NOT_BOUND', ignore: null, managed: null },
    driver: 'vfio-pci',
  },
  {
    what: 'a PF with VFs',
    address: PF,
    expected: { bind: 'HOSTDEV_GUARD', check: 'HOSTDEV_NOT_BOUND', ignore: null, managed: null },
  },
  {
    what: 'a peer of its group on a host driver',
    address: LONE,
    expected: {
      bind: 'HOSTDEV_GROUP_NOT_VIABLE',
      check: 'HOSTDEV_NOT_BOUND',
      ignore: null,
      managed: 'HOSTDEV_GROUP_NOT_VIABLE',
    },
  },
  {
    what: 'a device that is not there',
    address: ABSENT,
    expected: {
      bind: 'HOSTDEV_DEVICE_ABSENT',
      check: 'HOSTDEV_DEVICE_ABSENT',
      ignore: null,
      managed: 'HOSTDEV_DEVICE_ABSENT',
    },
  },
];

/** What `domain plan` says by itself before it asks the hook, because it can be mended in the plan. */
const OWN: Record<string, ErrorCode> = { [LONE]: 'HOSTDEV_GROUP_NOT_VIABLE', [ABSENT]: 'HOSTDEV_DEVICE_ABSENT' };

type Row = { kind: Kind; managed: 'yes' | 'no'; policy: Policy; hook: Hook };

/** Every kind with every policy and both ways of binding; and every kind with every state of the hook. */
const ROWS: Row[] = KINDS.flatMap((kind) =>
  (['no', 'yes'] as const).flatMap((managed) => [
    ...UNMANAGED.map((policy): Row => ({ kind, managed, policy, hook: 'installed' })),
    ...(['missing', 'outdated', 'not executable', 'no conf'] as const).map(
      (hook): Row => ({ kind, managed, policy: 'bind', hook }),
    ),
  ]),
);

const nameOf = ({ kind, managed, policy, hook }: Row): string =>
  `${kind.what}, managed='${managed}', unmanaged = "${policy}", hook ${hook}`;

/** The native part that is "installed": the built one need not be there. */
let native: string;
beforeAll(() => {
  native = mkdtempSync(join(tmpdir(), 'hostdev-preview-'));
  writeFileSync(join(native, 'hostdev-native'), 'ELF… usage: hostdev-native hook …');
  writeFileSync(join(native, 'hostdev.node'), '');
  process.env.HOSTDEV_NATIVE_DIR = native;
});
afterAll(() => {
  delete process.env.HOSTDEV_NATIVE_DIR;
  rmSync(native, { recursive: true });
});

let sims: SimulatedHost[] = [];
afterEach(() => {
  for (const sim of sims) sim.remove();
  sims = [];
});

async function hostOf({ kind, policy, hook }: Row): Promise<SimulatedHost> {
  const sim = simulatedHost();
  sims.push(sim);
  await kind.set?.(sim);
  const folder = sim.host.absolute(sim.host.config);
  mkdirSync(folder, { recursive: true });
  const allow = (kind.allow ?? []).map(
    ([guard, domain]) => `[[allow]]\ndevice = '${kind.address}'\nguard = '${guard}'\ndomain = '${domain}'\n`,
  );
  writeFileSync(join(folder, 'hostdev.toml'), `[hook]\nunmanaged = "${policy}"\n${allow.join('')}`);
  if (hook === 'missing') return sim;
  const { path } = installHook(sim.host, hookProgram(), false, HOOK_DEFAULTS, null);
  if (hook === 'outdated') writeFileSync(path, 'an older hostdev-native hook');
  if (hook === 'not executable') chmodSync(path, 0o644);
  if (hook === 'no conf') rmSync(join(dirname(dirname(path)), 'hostdev.conf'));
  return sim;
}

/** What the guest gets to hear, by construction. */
function answerOf({ kind, managed, policy, hook }: Row): Answer {
  if (hook === 'no conf') return 'HOSTDEV_HOOKS';
  return managed === 'yes' ? kind.expected.managed : kind.expected[policy];
}

const WHOLE = (devices: string): Uint8Array =>
  Buffer.from(
    `<domain type='kvm'><name>web</name><uuid>${UUID_A}</uuid><memory unit='GiB'>1</memory><os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features><devices>${devices}</devices></domain>`,
  );

const elementOf = ({ kind, managed }: Row): string =>
  /<hostdev.*<\/hostdev>/.exec(
    Buffer.from(domainXml('web', UUID_A, [{ address: kind.address, managed }])).toString(),
  )?.[0] ?? '';

const ask = {
  hook: (sim: SimulatedHost, row: Row) => call(sim, 'web', UUID_A, row.kind.address, row.managed),
  test: ({ host }: SimulatedHost, row: Row) => testHook(host, WHOLE(elementOf(row)), 'web.xml', OPTIONS, null),
  check: ({ host }: SimulatedHost, row: Row) =>
    checkDomainXml(host, WHOLE(elementOf(row)), 'web.xml', { libvirt: null, qemu: null }, OPTIONS),
  /** An empty domain that is to get the device; `has`: it has it already, and nothing else is asked. */
  plan: ({ host }: SimulatedHost, row: Row, has: boolean) =>
    planDomain(
      host,
      WHOLE(has ? elementOf(row) : ''),
      'web.xml',
      {
        add: has ? [] : [row.kind.address],
        remove: [],
        pick: null,
        connect: null,
        setup: { config: [], inventory: null },
        managed: row.managed === 'yes',
        model: null,
        rom: null,
        boot: null,
        nic: null,
        unassignedPeers: false,
        namespace: null,
        oneSlot: false,
        viommu: has ? 'none' : null,
        libvirt: null,
        qemu: null,
      },
      OPTIONS,
    ),
};

/** What a door answers, or the error that it raises. */
const either = <T>(p: Promise<T>): Promise<{ value: T } | { error: HostdevError }> =>
  p.then(
    (value) => ({ value }),
    (error: HostdevError) => ({ error }),
  );

test.each(['no', 'yes'] as const)(
  "--allow of whoever asks lifts a guard for the answer, and says that it does not for the hook: managed='%s'",
  async (managed) => {
    const kind = KINDS.find((k) => k.what === 'the root disk');
    if (kind === undefined) throw new Error('no such row');
    const row: Row = { kind, managed, policy: 'bind', hook: 'installed' };
    const { host } = await hostOf(row);
    const options = { ...OPTIONS, allowed: new Set<Guard>(['disk']) };
    const shown = await testHook(host, WHOLE(elementOf(row)), 'web.xml', options, null);
    expect(shown.warnings).toContainEqual({
      address: NVME,
      id: 'hook-refuses',
      text: expect.stringContaining('[[allow]]'),
    });
  },
);

test('the table is of the size that was asked for, and of both answers', () => {
  expect(ROWS.length).toBeGreaterThanOrEqual(60);
  for (const hook of ['installed', 'missing'])
    expect(new Set(ROWS.filter((r) => r.hook === hook).map(answerOf)).size).toBeGreaterThan(3);
});

test.each(ROWS.map((row) => [nameOf(row), row] as const))('%s', async (_, row) => {
  const { kind, managed, policy, hook } = row;
  const expected = answerOf(row);
  const runs = hook !== 'missing' && hook !== 'not executable';
  const sim = await hostOf(row);
  const before = sim.kernel.writes.length;
  const shown = await either(ask.test(sim, row));
  const check = await ask.check(sim, row);
  const plan = await either(ask.plan(sim, row, false));
  const edit = await ask.plan(sim, row, true);
  expect(sim.kernel.writes.length, 'who only asks writes nothing').toBe(before);
  // The part in node is never asked where the native part stops the guest before (hookclient.test.ts).
  const done = hook === 'no conf' ? null : await either(ask.hook(sim, row));

  // Whether it may start.
  const codes = [shown, ...(done === null ? [] : [done])].map((d) => ('error' in d ? d.error.code : null));
  expect(new Set(codes), 'hook test, and the hook').toEqual(new Set([expected]));
  expect([check.valid, check.host?.hook_runs], 'domain check').toEqual([expected === null, runs]);
  const own = OWN[kind.address];
  if (own !== undefined) expect(plan, 'domain plan').toMatchObject({ error: { code: own } });
  else if (expected === null) expect(plan, 'domain plan').toHaveProperty('value.xml');
  else {
    const code = ERRORS[expected].exit === 5 ? expected : 'HOSTDEV_HOOK_REFUSES';
    expect(plan, 'domain plan').toMatchObject({ error: { exit: 5, code, data: { reason: expected } } });
    const said = 'error' in plan ? plan.error.message : '';
    expect(said.includes('the hook will'), said).toBe(runs);
  }
  const told = edit.warnings.filter((w) => w.id === 'hook-refuses');
  expect(told.length > 0, 'domain plan of a domain that has it').toBe(expected !== null);
  expect(edit.warnings.some((w) => w.text.includes('the hook will'))).toBe(expected !== null && runs);

  // What becomes of the device.
  if ('error' in shown) return;
  const { value } = shown;
  const ignored = managed === 'no' && policy === 'ignore';
  const driver = kind.driver ?? null;
  const [will, willCheck, bound] =
    managed === 'yes'
      ? ['bound by libvirt', 'libvirt', []]
      : ignored
        ? ['ignored: unmanaged = "ignore"', null, undefined]
        : [driver ?? 'left alone', driver, driver === null ? [] : [kind.address]];
  expect(value.devices).toMatchObject([{ address: kind.address, will_be: will }]);
  expect(check.host?.devices[0]?.will_be ?? null).toBe(willCheck);
  expect(done).toMatchObject({ value: bound === undefined ? {} : { bound } });
  if (bound !== undefined && bound.length > 0) expect(sim.kernel.devices.get(kind.address)?.driver).toBe(driver);

  // What nobody does is said, and promised by none.
  const onVfio = value.devices[0]?.driver?.includes('vfio') === true;
  const left = !onVfio && managed === 'no' && (ignored || !runs);
  const id = ignored ? 'hook-ignores' : 'hook-missing';
  if (kind.address !== ABSENT) expect(check.findings.some((f) => f.rule === id)).toBe(left);
  if ('value' in plan) expect(plan.value.warnings.some((w) => w.id === id)).toBe(left);
  expect(value.warnings.some((w) => w.id === 'hook-missing')).toBe(!runs);
  expect(value.hook_runs).toBe(runs);
});
