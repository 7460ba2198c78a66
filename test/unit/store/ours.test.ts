/**
 * Whose our state is (contract 13): root's, to be read by all but for the journal and the locks, and refused where
 * somebody else could have written it.
 */
import { chmodSync, chownSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { bindDevices } from '../../../src/actions/bind.ts';
import { loadNative } from '../../../src/addon/load.ts';
import { newBinding, writeBinding } from '../../../src/binding/books.ts';
import { Host } from '../../../src/host/host.ts';
import { isLacking } from '../../lacking.ts';
import { domainXml, type SimulatedHost, simulatedHost, UUID_A } from '../../mock/hosts.ts';
import { leaveJournal } from '../../mock/leftJournal.ts';
import { CLI, hostdev, type Ran, runCommand, StaticHost } from '../../mock/tree.ts';
import { EVER } from '../../patience.ts';

const NIC = '0000:03:00.0';
const VF = '0000:21:10.0';
const isRoot = process.geteuid?.() === 0;
const testAsRoot = test.skipIf(isLacking(isRoot ? null : 'files of other users need root'));

describe('what a change makes', () => {
  let sim: SimulatedHost;
  beforeEach(() => {
    sim = simulatedHost();
  });
  afterEach(() => sim.remove());
  const bind = () => bindDevices(sim.host, [VF], null, { deadlineMs: EVER, dryRun: false, allowed: new Set() });
  const mode = (path: string): string => (statSync(sim.host.absolute(path)).mode & 0o7777).toString(8);

  test('is readable for all, the journal and the locks are not; an earlier version made all of it for root alone', async () => {
    const umask = process.umask(0o077);
    try {
      await bind();
    } finally {
      process.umask(umask);
    }
    const modes = () =>
      ['run', 'run/hostdev', 'run/hostdev/bindings', 'run/hostdev/journal', 'run/hostdev/lock'].map(mode);
    const right = ['755', '755', '755', '700', '700'];
    expect(modes()).toEqual(right);
    expect(mode(`run/hostdev/bindings/${VF}.json`)).toBe('644');
    for (const folder of ['', '/bindings', '/journal', '/lock'])
      chmodSync(sim.host.absolute(`run/hostdev${folder}`), 0o700);
    chmodSync(sim.host.absolute('run/hostdev/journal'), 0o755);
    chmodSync(sim.host.absolute(`run/hostdev/bindings/${VF}.json`), 0o600);
    await bindDevices(sim.host, ['0000:21:10.2'], null, { deadlineMs: EVER, dryRun: false, allowed: new Set() });
    expect(modes()).toEqual(right);
    expect(mode(`run/hostdev/bindings/${VF}.json`)).toBe('644');
  });

  const PLACES = ['', '/bindings', '/journal', '/quarantine', '/started', '/lock', '/hook.log'];
  const FILES = [`/bindings/${VF}.json`, '/journal/x.json', '/lock/group-11'];
  const make = (place: string): string => {
    const path = sim.host.absolute(`run/hostdev${place}`);
    if (/\.|group/.test(place)) {
      mkdirSync(path.slice(0, path.lastIndexOf('/')), { recursive: true });
      writeFileSync(path, '{}', { mode: 0o600 });
    } else mkdirSync(path, { recursive: true });
    return path;
  };

  test.each([...PLACES, ...FILES])('run/hostdev%s that others can write to is refused', async (place) => {
    const path = make(place);
    for (const bits of [0o772, 0o720]) {
      chmodSync(path, bits);
      await expect(bind()).rejects.toMatchObject({
        code: 'HOSTDEV_STORE_UNSAFE',
        message: expect.stringContaining(path),
        hint: expect.stringContaining(`chmod go-w ${path}`),
      });
    }
    expect(sim.kernel.writes).toEqual([]);
  });

  testAsRoot.each([...PLACES, ...FILES])("run/hostdev%s that is another user's is refused", async (place) => {
    const path = make(place);
    chownSync(path, 1234, 0);
    await expect(bind()).rejects.toMatchObject({
      code: 'HOSTDEV_STORE_UNSAFE',
      message: expect.stringContaining('1234'),
    });
    expect(sim.kernel.writes).toEqual([]);
  });
});

describe('the CLI', () => {
  let host: StaticHost;
  beforeEach(() => {
    host = new StaticHost({
      devices: [{ address: NIC, ids: '8086:100e', group: 4, driver: 'vfio-pci' }],
      drivers: { 'vfio-pci': 'vfio_pci', e1000: 'e1000' },
    });
    chmodSync(host.root, 0o755);
    const own = new Host(host.root, loadNative());
    const hold = { owner: 'admin' as const, name: null, managed: false, libvirt: null };
    const [before, after] = [
      { driver: 'e1000', override: null },
      { driver: 'vfio-pci', override: null },
    ];
    writeBinding(own, newBinding(own, NIC, 4, hold, before, after));
    leaveJournal(own, []);
  });
  afterEach(() => host.remove());

  const GUEST = Buffer.from(domainXml('guest', UUID_A, [{ address: NIC }])).toString();
  const hook = (operation: string): Ran =>
    hostdev(['--root', host.root, 'hook', 'run', 'guest', operation, 'begin', '-'], { input: GUEST });

  test('every changing verb refuses, its dry run too; reading goes on; doctor says it', () => {
    const path = host.path('run/hostdev/bindings');
    chmodSync(path, 0o777);
    const before = host.hash();
    for (const args of [
      ['bind', NIC],
      ['unbind', NIC],
      ['status', '--fix'],
      ['journal', 'undo'],
      ['journal', 'resume', 'x-1-1'],
    ]) {
      const ran = host.run(...args);
      expect({ args, exit: ran.exit, err: ran.err }).toEqual({ args, exit: 1, err: expect.stringContaining(path) });
    }
    const dry = host.run('unbind', '-n', NIC);
    expect({ exit: dry.exit, err: dry.err }).toEqual({ exit: 1, err: expect.stringContaining('would refuse') });
    expect(hook('prepare')).toMatchObject({ exit: 1, err: expect.stringContaining(path) });
    expect(hook('release').exit).toBe(0);
    expect(host.run('status').out).toContain(NIC);
    const doctor = host.run('doctor', '-j').json as unknown as { findings: { id: string; object: string }[] };
    expect(doctor.findings.filter((f) => f.id === 'run-not-ours')).toMatchObject([{ object: path }]);
    // What refused says so in its own log, which is ours.
    host.remove('run/hostdev/hook.log');
    expect(host.hash()).toBe(before);
  });

  testAsRoot('an ordinary user reads all but the journal, which is said and is not taken for empty', () => {
    const asNobody = (...args: string[]): Ran =>
      runCommand('setpriv', [
        '--reuid=65534',
        '--regid=65534',
        '--clear-groups',
        process.execPath,
        CLI,
        '--root',
        host.root,
        ...args,
      ]);
    for (const args of [['list'], ['show', NIC], ['group', 'list']]) expect(asNobody(...args).exit).toBe(0);
    const status = asNobody('status', '-j');
    expect(status.exit).toBe(1);
    expect(status.json).toMatchObject({ bindings: [{ address: NIC, owner: 'admin' }], journal: null });
    expect(status.err).toContain('the journal is for root to read');
    const listed = asNobody('journal', 'list', '-j');
    expect(listed.exit).toBe(6);
    expect(listed.json).toMatchObject({ error: { code: 'HOSTDEV_NOT_PERMITTED' } });
    // Without a journal there is nothing to be told.
    host.remove('run/hostdev/journal');
    expect(asNobody('status').exit).toBe(0);
    for (const args of [
      ['bind', NIC],
      ['unbind', NIC],
    ])
      expect(asNobody(...args).exit).toBe(6);
  });
});
