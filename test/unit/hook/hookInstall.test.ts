import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { uninstall } from '../../../src/actions/uninstall.ts';
import { HOOK_DEFAULTS } from '../../../src/config/hookDefaults.ts';
import { parseVersion } from '../../../src/domain/version.ts';
import type { HostdevError } from '../../../src/errors.ts';
import { hookStatus, installHook, removeHook } from '../../../src/hook/install.ts';
import { Host } from '../../../src/host/host.ts';
import { book, holdOf } from '../../mock/booked.ts';
import { DRIVERS, SMALL_HOST, UUID_A } from '../../mock/hosts.ts';
import { KernelModel } from '../../mock/kernel.ts';
import { texts } from '../../mock/warnings.ts';

let root: string;
let host: Host;
const program = () => ({ native: join(root, 'native'), nodes: [join(root, 'node')], cli: join(root, 'cli.js') });
const hooks = (...parts: string[]) => join(root, 'etc/libvirt/hooks', ...parts);
const HOOK = ['qemu.d', '90-hostdev'];

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'hostdev-hooks-'));
  host = new Host(root, new KernelModel([], []));
  writeFileSync(join(root, 'native'), 'ELF… usage: hostdev-native hook …');
  writeFileSync(join(root, 'node'), '', { mode: 0o755 });
  writeFileSync(join(root, 'cli.js'), '');
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

test('installs a real executable file and its conf; again is no change; remove takes both away', () => {
  const first = installHook(host, program(), false, HOOK_DEFAULTS, null);
  expect(first).toMatchObject({ changed: true, path: hooks(...HOOK) });
  expect(texts(first.notes).join()).toContain('systemctl restart libvirtd');
  expect(statSync(hooks(...HOOK)).mode & 0o777).toBe(0o755);
  expect(readFileSync(hooks('hostdev.conf'), 'utf8')).toContain(
    `node=${join(root, 'node')}\ncli=${join(root, 'cli.js')}\nroot=${root}\n`,
  );
  expect(hookStatus(host, program())).toEqual({ installed: true, path: hooks(...HOOK), problems: [] });
  expect(installHook(host, program(), false, HOOK_DEFAULTS, null).changed).toBe(false);
  const removed = removeHook(host, false);
  expect(texts(removed.notes).join()).toContain('until it is restarted');
  expect(existsSync(hooks(...HOOK)) || existsSync(hooks('hostdev.conf'))).toBe(false);
  expect(removeHook(host, false).changed).toBe(false);
  expect(hookStatus(host, program()).installed).toBe(false);
});

test('the deadlines of hostdev.toml go into its conf', () => {
  installHook(host, program(), false, { prepare_seconds: 45, start_seconds: 7, other_seconds: 3 }, null);
  expect(readFileSync(hooks('hostdev.conf'), 'utf8')).toContain(
    'prepare_deadline=45\nstart_deadline=7\nother_deadline=3\n',
  );
});

test('a libvirt before 6.5.0 has no qemu.d: hooks/qemu itself, where the name is free', () => {
  const place = (version: string) => installHook(host, program(), true, HOOK_DEFAULTS, parseVersion(version)).path;
  expect(['6.4.9', '6.5.0', '12.8.0'].map(place)).toEqual([hooks('qemu'), hooks(...HOOK), hooks(...HOOK)]);
});

test("the native part's own deadlines, for a conf that names none, are those of hookDefaults.ts", () => {
  const header = readFileSync(new URL('../../../native/hook_conf.h', import.meta.url), 'utf8');
  const found = [...header.matchAll(/double (prepare|start|other)_deadline = (\d+);/g)].map(([, name, s]) => [name, s]);
  const { prepare_seconds, start_seconds, other_seconds } = HOOK_DEFAULTS;
  const table = { prepare: `${prepare_seconds}`, start: `${start_seconds}`, other: `${other_seconds}` };
  expect(Object.fromEntries(found)).toEqual(table);
});

test('a dry run touches nothing', () => {
  expect(installHook(host, program(), true, HOOK_DEFAULTS, null).changed).toBe(true);
  expect(existsSync(hooks())).toBe(false);
  installHook(host, program(), false, HOOK_DEFAULTS, null);
  expect(removeHook(host, true).changed).toBe(true);
  expect(hookStatus(host, program()).installed).toBe(true);
});

test('no restart is asked for where libvirt has a qemu hook already: it reads qemu.d at each call then', () => {
  mkdirSync(hooks(), { recursive: true });
  writeFileSync(hooks('qemu'), '#!/bin/sh\n', { mode: 0o755 });
  expect(installHook(host, program(), false, HOOK_DEFAULTS, null).notes).toEqual([]);
  expect(readFileSync(hooks('qemu'), 'utf8')).toBe('#!/bin/sh\n');
});

describe('what is not ours stays', () => {
  test('a file of that name', () => {
    mkdirSync(hooks('qemu.d'), { recursive: true });
    writeFileSync(hooks(...HOOK), '#!/bin/sh\necho mine\n');
    expect(() => installHook(host, program(), false, HOOK_DEFAULTS, null)).toThrow(
      expect.objectContaining({ code: 'HOSTDEV_HOOKS' }),
    );
    expect(() => removeHook(host, false)).toThrow(expect.objectContaining({ code: 'HOSTDEV_HOOKS' }));
    expect(readFileSync(hooks(...HOOK), 'utf8')).toContain('mine');
  });

  test('a link of that name', () => {
    mkdirSync(hooks('qemu.d'), { recursive: true });
    symlinkSync(join(root, 'native'), hooks(...HOOK));
    expect(() => installHook(host, program(), false, HOOK_DEFAULTS, null)).toThrow(/is a symbolic link/);
  });
});

test('status names what keeps libvirt from running it', () => {
  installHook(host, program(), false, HOOK_DEFAULTS, null);
  chmodSync(hooks(...HOOK), 0o644);
  rmSync(join(root, 'node'));
  writeFileSync(join(root, 'native'), 'a newer hostdev-native hook');
  const { problems } = hookStatus(host, program());
  expect(problems.map((p) => p.id)).toEqual(['not-executable', 'outdated', 'no-node']);
  expect(problems[2]?.text).toMatch(/node=.* is not there/);
});

test.each([
  ['a script of theirs', () => writeFileSync(hooks(...HOOK), '#!/bin/sh\n'), "is not hostdev's"],
  ['a link that leads nowhere', () => symlinkSync('/nowhere', hooks(...HOOK)), 'is a symbolic link'],
])('status does not send to an install that would refuse: %s', (_, put, said) => {
  mkdirSync(dirname(hooks(...HOOK)), { recursive: true });
  put();
  const [problem] = hookStatus(host, program()).problems;
  expect(problem).toMatchObject({ id: 'missing', text: expect.stringContaining(said) });
  expect(problem?.text).toMatch(/: move it away, then run 'hostdev hook install'$/);
});

test.each([
  ['is empty', () => '', ['no-node', 'no-cli'], /names no node=/],
  ['was cut', (c: string) => c.slice(0, c.indexOf('cli=')), ['no-cli'], /names no cli=/],
  ['names no node', (c: string) => c.replace(/^node=.*\n/m, ''), ['no-node'], /names no node=/],
  [
    'is of an image below a root',
    (c: string) => c.replace(/^root=.*/m, 'root=/mnt'),
    ['other-root'],
    /^root=\/mnt in /,
  ],
  ['is of the host itself', (c: string) => c.replace(/^root=.*/m, 'root=/'), []],
  ['has an empty value', (c: string) => c.replace(/^cli=.*/m, 'cli= '), ['no-cli'], /names no cli=/],
  ['was written by an editor of another system', (c: string) => c.replaceAll('=', ' = ').replaceAll('\n', '\r\n'), []],
])('status names what the conf keeps it from starting: it %s', (_, change, ids, text?: RegExp) => {
  installHook(host, program(), false, HOOK_DEFAULTS, null);
  const file = hooks('hostdev.conf');
  writeFileSync(file, change(readFileSync(file, 'utf8')));
  const { problems } = hookStatus(host, program());
  expect(problems.map((p) => p.id)).toEqual(ids);
  if (text) expect(problems[0]?.text).toMatch(text);
});

test('status names a node that is no program and a cli that is no file', () => {
  installHook(host, program(), false, HOOK_DEFAULTS, null);
  chmodSync(join(root, 'node'), 0o644);
  rmSync(join(root, 'cli.js'));
  mkdirSync(join(root, 'cli.js'));
  const told = hookStatus(host, program()).problems.map((p) => `${p.id}: ${p.text}`);
  expect(told).toEqual([
    expect.stringMatching(/^no-node: node=.* is no program/),
    expect.stringMatching(/^no-cli: cli=.* is no file/),
  ]);
});

test('remove says which devices guests still have', () => {
  installHook(host, program(), false, HOOK_DEFAULTS, null);
  const [igbvf, vfio] = [
    { driver: 'igbvf', override: null },
    { driver: 'vfio-pci', override: 'vfio-pci' },
  ];
  const a = holdOf(`domain:${UUID_A}`, 'a');
  book(host, '0000:21:10.0', 11, a, igbvf, vfio);
  expect(texts(removeHook(host, false).notes).join()).toContain('0000:21:10.0');
});

test('remove takes away the folders that install has made, also by way of a second install, and no others', () => {
  mkdirSync(hooks(), { recursive: true });
  installHook(host, program(), false, HOOK_DEFAULTS, null);
  installHook(host, program(), false, { prepare_seconds: 45, start_seconds: 7, other_seconds: 3 }, null);
  removeHook(host, false);
  expect([existsSync(hooks()), existsSync(hooks('qemu.d'))]).toEqual([true, false]);
  mkdirSync(hooks('qemu.d'));
  installHook(host, program(), false, HOOK_DEFAULTS, null);
  removeHook(host, false);
  expect(existsSync(hooks('qemu.d'))).toBe(true);
  installHook(host, program(), false, HOOK_DEFAULTS, null);
  writeFileSync(hooks('qemu.d', 'mine'), '');
  removeHook(host, false);
  expect(existsSync(hooks('qemu.d', 'mine'))).toBe(true);
});

test('of several nodes one is enough; a hook that was told of a removal is not whole', () => {
  const two = { ...program(), nodes: [join(root, 'newer'), join(root, 'node')] };
  installHook(host, two, false, HOOK_DEFAULTS, null);
  expect(hookStatus(host, two).problems).toEqual([]);
  rmSync(join(root, 'node'));
  expect(hookStatus(host, two).problems[0]?.text).toMatch(/newer and .*node in .* is not there/);
  writeFileSync(join(root, 'newer'), '', { mode: 0o755 });
  writeFileSync(hooks('hostdev.conf'), `${readFileSync(hooks('hostdev.conf'), 'utf8')}removed=yesterday\n`);
  expect(hookStatus(host, two).problems).toMatchObject([{ id: 'removed' }]);
  installHook(host, two, false, HOOK_DEFAULTS, null);
  expect(hookStatus(host, two).problems).toEqual([]);
});

describe('before the program is removed', () => {
  const [igbvf, vfio] = [
    { driver: 'igbvf', override: null },
    { driver: 'vfio-pci', override: 'vfio-pci' },
  ];
  const refused = async () => {
    const e = await uninstall(host, program(), false).catch((x: unknown) => x);
    expect(e).toMatchObject({ code: 'HOSTDEV_IN_USE', exit: 5 });
    expect(hookStatus(host, program()).installed).toBe(true);
    return e as HostdevError;
  };

  test('the hook goes when nothing is bound', async () => {
    installHook(host, program(), false, HOOK_DEFAULTS, null);
    expect(await uninstall(host, program(), true)).toMatchObject({ changed: true });
    expect(hookStatus(host, program()).installed).toBe(true);
    expect(await uninstall(host, program(), false)).toMatchObject({ changed: true });
    expect(hookStatus(host, program()).installed).toBe(false);
    expect(await uninstall(host, program(), false)).toMatchObject({ changed: false });
  });

  test.each([
    ['an admin', { owner: 'admin', name: null, managed: false, libvirt: null } as const, 'for admin', 'hostdev unbind'],
    ['a guest', holdOf(`domain:${UUID_A}`, 'web1'), 'domain web1', 'shut down web1'],
  ])('it is refused while %s has a device', async (_, hold, whose, way) => {
    const bound = SMALL_HOST.map((d) => (d.address === '0000:21:10.0' ? { ...d, ...vfio } : d));
    host = new Host(root, new KernelModel(bound, DRIVERS));
    installHook(host, program(), false, HOOK_DEFAULTS, null);
    book(host, '0000:21:10.0', 11, hold, igbvf, vfio);
    const { message, hint } = await refused();
    expect(message).toContain('0000:21:10.0');
    expect(message).toContain(whose);
    expect(hint).toMatch(new RegExp(way));
  });

  test.each([
    ['file', (at: string) => writeFileSync(at, '#!/bin/sh\n')],
    ['link', (at: string) => symlinkSync('/bin/true', at)],
    ['folder', (at: string) => mkdirSync(at)],
  ])("a %s of the hook's name that is not ours stays, and keeps nobody from removing hostdev", async (_, make) => {
    installHook(host, program(), false, HOOK_DEFAULTS, null);
    rmSync(hooks(...HOOK));
    make(hooks(...HOOK));
    for (const dryRun of [true, false]) {
      const { changed, notes } = await uninstall(host, program(), dryRun);
      expect([changed, notes.map((n) => n.id)]).toEqual([true, expect.arrayContaining(['foreign-hook'])]);
    }
    expect([existsSync(hooks(...HOOK)), existsSync(hooks('hostdev.conf'))]).toEqual([true, false]);
    expect(await uninstall(host, program(), false)).toMatchObject({ changed: false, notes: [{ id: 'foreign-hook' }] });
  });

  test('it is refused for a book that cannot be read', async () => {
    installHook(host, program(), false, HOOK_DEFAULTS, null);
    mkdirSync(join(root, 'run/hostdev/bindings'), { recursive: true });
    writeFileSync(join(root, 'run/hostdev/bindings/0000:21:10.0.json'), '{');
    expect((await refused()).message).toContain('0000:21:10.0.json');
  });

  test('a hook that starts another hostdev stays', async () => {
    installHook(host, { ...program(), cli: join(root, 'other.js') }, false, HOOK_DEFAULTS, null);
    const { changed, notes } = await uninstall(host, program(), false);
    expect([changed, notes.map((n) => n.text).join()]).toEqual([false, expect.stringContaining('other.js')]);
    expect(existsSync(hooks(...HOOK))).toBe(true);
  });
});
