/**
 * The record: a line for each change and each lifted guard, that never stands in a change's way, is never large, and
 * goes to the system log on the machine itself only.
 */

import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { bindDevices } from '../../../src/actions/bind.ts';
import { NOT_ASKED } from '../../../src/actions/inGuest.ts';
import { finishJournal } from '../../../src/actions/journal.ts';
import { readRecord } from '../../../src/actions/log.ts';
import { fixStatus } from '../../../src/actions/statusFix.ts';
import { unbindDevices } from '../../../src/actions/unbind.ts';
import { createVfs, removeVfs } from '../../../src/actions/vf.ts';
import { loadNative } from '../../../src/addon/load.ts';
import { type RecordLine, systemText } from '../../../src/binding/record.ts';
import { runHook } from '../../../src/hook/run.ts';
import { Host } from '../../../src/host/host.ts';
import { domainXml, type SimulatedHost, simulatedHost, UUID_A } from '../../mock/hosts.ts';
import { leaveJournal } from '../../mock/leftJournal.ts';
import { saying, texts } from '../../mock/warnings.ts';
import { EVER } from '../../patience.ts';

const VF = '0000:21:10.0';
const PF = '0000:21:00.0';
const VARIANT = 'tb_igbvf_vfio_pci';

let sim: SimulatedHost;
beforeEach(() => {
  sim = simulatedHost();
});
afterEach(() => sim.remove());

const options = (verb: string, ...allowed: ('vfs' | 'in-use')[]) => ({
  deadlineMs: EVER,
  dryRun: false,
  allowed: new Set(allowed),
  verb,
});
const lines = (device: string | null = null): RecordLine[] => readRecord(sim.host, device).records;
const file = (): string => sim.host.absolute(sim.host.record);

test('bind and unbind: who, for whom, what, before and after', async () => {
  const [sudo, none] = [process.env.SUDO_UID, undefined];
  process.env.SUDO_UID = '1000';
  try {
    await bindDevices(sim.host, [VF], null, options('bind'));
    await unbindDevices(sim.host, [VF], false, options('unbind'));
  } finally {
    if (sudo === none) delete process.env.SUDO_UID;
    else process.env.SUDO_UID = sudo;
  }
  const common = { device: VF, outcome: 'done', owner: 'admin', guest: null, sudo_uid: 1000, uid: process.getuid?.() };
  expect(lines()).toMatchObject([
    {
      ...common,
      verb: 'bind',
      before: { driver: 'igbvf', override: null },
      after: { driver: VARIANT, override: VARIANT },
      lifted: [],
      recovered: false,
    },
    { ...common, verb: 'unbind', before: { driver: VARIANT }, after: { driver: 'igbvf', override: null } },
  ]);
  expect(statSync(file()).mode & 0o777).toBe(0o640);
});

test('a dry run, and what is refused, leave no line', async () => {
  await bindDevices(sim.host, [VF], null, { ...options('bind'), dryRun: true });
  await expect(bindDevices(sim.host, [PF], null, options('bind'))).rejects.toMatchObject({ exit: 5 });
  expect(existsSync(file())).toBe(false);
});

test('a change that was undone says so, with the reason', async () => {
  sim.kernel.fault = (path) => (path.endsWith('drivers_probe') && sim.kernel.writes.length < 4 ? 'silent' : null);
  await expect(bindDevices(sim.host, [VF], null, options('bind'))).rejects.toThrow();
  expect(lines()).toMatchObject([
    {
      device: VF,
      outcome: 'undone',
      before: { driver: 'igbvf' },
      after: { driver: 'igbvf' },
      reason: expect.any(String),
    },
  ]);
});

test('VFs: how many there were and are; the lifted guard with its reason', async () => {
  await createVfs(sim.host, PF, 2, 'vfio', options('vf create')).catch(() => null);
  await removeVfs(sim.host, PF, options('vf remove'));
  expect(lines(PF).at(-1)).toMatchObject({ verb: 'vf remove', vfs: { after: 0 } });
  await createVfs(sim.host, PF, 2, 'netdev', options('vf create'));
  await bindDevices(sim.host, [PF], null, options('bind', 'vfs'));
  expect(lines(PF).slice(-2)).toMatchObject([
    { verb: 'vf create', vfs: { before: 0, after: 2 }, lifted: [] },
    {
      verb: 'bind',
      vfs: { before: 2, after: 0 },
      lifted: [{ guard: 'vfs', reason: expect.stringContaining('2 VFs') }],
    },
  ]);
});

test('the hook: the guest by name and UUID', async () => {
  const call = (operation: string) =>
    runHook(
      sim.host,
      { name: 'g', operation, xml: domainXml('g', UUID_A, [{ address: VF }]) },
      { deadlineMs: EVER, allowed: new Set(), lockedUuid: null, verb: `hook ${operation}` },
    );
  await call('prepare');
  await call('release');
  const who = { device: VF, owner: `domain:${UUID_A}`, guest: 'g', outcome: 'done' };
  expect(lines()).toMatchObject([
    { ...who, verb: 'hook prepare' },
    { ...who, verb: 'hook release', after: { driver: 'igbvf', override: null } },
  ]);
});

test('recovery and status --fix', async () => {
  const move = {
    address: VF,
    group: 11,
    from: { driver: 'igbvf', override: null },
    to: { driver: VARIANT, override: VARIANT },
    override_bytes: '(null)\n',
  };
  leaveJournal(sim.host, [move], { mark: null });
  const journal = sim.host.absolute(`${sim.host.journal}/x-1-1.json`);
  writeFileSync(journal, readFileSync(journal, 'utf8').replace(/"pid": \d+/, '"pid": 1'));
  await finishJournal(sim.host, [], 'resume', options('journal resume'));
  expect(lines()).toMatchObject([{ verb: 'journal resume', entry: 'x-1-1', recovered: true, outcome: 'done' }]);
  await bindDevices(sim.host, ['0000:21:10.2'], null, options('bind'));
  const writer = sim.host.native.openWriter(sim.host.root);
  await writer.write(`sys/bus/pci/drivers/${VARIANT}/unbind`, '0000:21:10.2', 1000);
  writer.close();
  await fixStatus(sim.host, options('status'), NOT_ASKED);
  expect(lines('0000:21:10.2').at(-1)).toMatchObject({ verb: 'status', outcome: 'done' });
});

describe('the file', () => {
  const bind = () => bindDevices(sim.host, [VF], null, options('bind'));
  const unbind = () => unbindDevices(sim.host, [VF], false, options('unbind'));

  test('that cannot be written fails no change', async () => {
    mkdirSync(file(), { recursive: true });
    await bind();
    rmSync(file(), { recursive: true });
    rmSync(join(file(), '..'), { recursive: true });
    writeFileSync(join(file(), '..'), 'no folder');
    await unbind();
    expect(sim.kernel.devices.get(VF)?.driver).toBe('igbvf');
  });

  test('that somebody else can write to, or that is another file too, is left alone', async () => {
    mkdirSync(join(file(), '..'), { recursive: true });
    writeFileSync(file(), '');
    chmodSync(file(), 0o666);
    await bind();
    expect(readFileSync(file(), 'utf8')).toBe('');
  });

  test('is never larger than 1 MiB, and one generation is kept', async () => {
    await bind();
    const [line] = readFileSync(file(), 'utf8').split('\n');
    const full = `${line}\n`.repeat(Math.floor((1024 * 1024) / ((line ?? '').length + 1)));
    writeFileSync(file(), full);
    await unbind();
    expect(readFileSync(`${file()}.1`, 'utf8')).toBe(full);
    expect(readFileSync(file(), 'utf8').split('\n')).toHaveLength(2);
    writeFileSync(file(), full);
    await bind();
    const all = lines();
    expect(all.at(-1)).toMatchObject({ verb: 'bind' });
    expect(all.at(-2)).toMatchObject({ verb: 'bind' });
  });

  test('with lines that are none of ours is read all the same, and said', async () => {
    await bind();
    writeFileSync(file(), `not json\n{"schema":2}\n${readFileSync(file(), 'utf8')}{"schema":1,"time":"cut o`);
    const { records, warnings } = readRecord(sim.host, null);
    expect(records).toHaveLength(1);
    expect(texts(warnings)).toEqual([expect.stringContaining('3 lines')]);
    await unbind();
    expect(readRecord(sim.host, null)).toMatchObject({
      records: { length: 2 },
      warnings: [saying('3 lines')],
    });
    const [good] = records;
    const forged = [
      { ...good, before: { driver: { toString: 1 }, override: null } },
      { ...good, vfs: { before: {}, after: 1 } },
      { ...good, lifted: [{ guard: 'disk', reason: 7 }] },
    ].map((l) => JSON.stringify(l));
    const deep = `${JSON.stringify(good).slice(0, -1)},"x":${'['.repeat(50_000)}${']'.repeat(50_000)}}`;
    const many = `${JSON.stringify(good)}\n`.repeat(5000);
    writeFileSync(file(), `${forged.join('\n')}\n${deep}\n${many}`);
    const read = readRecord(sim.host, null);
    expect(read.records).toHaveLength(5001);
    expect(JSON.parse(JSON.stringify(read.records[0]))).toEqual(good);
    expect(texts(read.warnings)).toEqual([expect.stringContaining('3 lines')]);
  });
});

describe('the system log', () => {
  test('hears of nothing below another root, and of each line on the machine itself', async () => {
    await bindDevices(sim.host, [VF], null, options('bind'));
    expect(sim.kernel.logged).toEqual([]);
    Object.defineProperty(sim.host, 'isReal', { value: true });
    if (process.geteuid?.() !== 0) return;
    await unbindDevices(sim.host, [VF], false, options('unbind'));
    expect(sim.kernel.logged).toEqual([
      expect.stringMatching(/^device=0000:21:10\.0 verb=unbind outcome=done before=".*" after=\S.* for=admin uid=0 /),
    ]);
  });

  const LINE: RecordLine = {
    schema: 1,
    time: '',
    device: VF,
    verb: 'bind',
    outcome: 'done',
    before: null,
    after: { driver: 'a"b', override: null },
    vfs: null,
    vgpu_type: { before: '0', after: '592' },
    reason: 'x\ny\u2028',
    owner: 'admin',
    guest: 'evil" device=other\n',
    uid: 0,
    loginuid: 1000,
    sudo_uid: null,
    entry: null,
    recovered: false,
    lifted: [{ guard: 'disk', reason: 'ä' }],
  };

  test('gets one line of ASCII, whatever names are in it', () => {
    const text = systemText(LINE);
    expect(text).toMatch(/^[ -~]+$/);
    expect(text).toContain('guest="evil\\" device=other\\n"');
    expect(text).toContain('lifted="disk: \\u00e4"');
    expect(text).toContain('loginuid=1000');
  });

  test('the addon sends it as syslog does, cuts what is too long, and waits for nobody', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'hostdev-log-'));
    const socket = join(folder, 'log');
    const native = loadNative();
    try {
      expect(native.systemLog(socket, 'x')).toBe(false);
      const listener = spawn(
        'python3',
        [
          '-c',
          'import socket,sys\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\ns.bind(sys.argv[1])\nprint("up",flush=True)\nsys.stdin.readline()\ns.setblocking(False)\nprint(s.recv(9999).decode("latin1"))\nprint(s.recv(9999).decode("latin1"))',
          socket,
        ],
        { stdio: ['pipe', 'pipe', 'inherit'] },
      );
      let out = '';
      const ended = new Promise((r) => listener.once('close', r));
      await new Promise<void>((r) =>
        listener.stdout.on('data', (d) => {
          out += d;
          r();
        }),
      );
      expect(native.systemLog(socket, systemText(LINE))).toBe(true);
      expect(native.systemLog(socket, `a\nb\x1b${'c'.repeat(5000)}`)).toBe(true);
      // Nobody takes them off: the queue is full at some time, and that is answered at once.
      let full = 0;
      for (let i = 0; i < 5000 && full === 0; i += 1) if (!native.systemLog(socket, 'more')) full += 1;
      expect(full).toBe(1);
      listener.stdin.write('\n');
      await ended;
      const [, first = '', second = ''] = out.split('\n');
      expect(first).toMatch(
        /^<29>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d hostdev\[\d+\]: device=0000:21:10\.0 verb=bind /,
      );
      expect(second).toMatch(/\]: a\?b\?c+$/);
      expect(second.length).toBeLessThan(2048);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

test('the real host is asked for its socket', () => {
  expect(new Host('/', loadNative()).systemLog).toBe('/dev/log');
});
