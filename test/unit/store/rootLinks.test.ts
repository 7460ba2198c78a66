/**
 * A tree from somebody else's machine, given with --root: whatever its links say, nothing outside it is written,
 * removed, made or quoted, and a link where a file of ours should be is refused by name.
 */
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { domainXml, UUID_A } from '../../mock/hosts.ts';
import { CLI, hostdev, type Ran, runCommand, StaticHost } from '../../mock/tree.ts';

const NIC = '0000:03:00.0';
const SECRET = 'root:$6$secrethash:19000:0';

let host: StaticHost;
let outside: string;
beforeEach(() => {
  host = new StaticHost({
    devices: [{ address: NIC, ids: '8086:100e', group: 4, driver: 'e1000' }],
    drivers: { 'vfio-pci': 'vfio_pci' },
  });
  outside = mkdtempSync(join(tmpdir(), 'hostdev-outside-'));
  writeFileSync(join(outside, 'secret'), SECRET, { mode: 0o600 });
  mkdirSync(join(outside, 'folder'));
  writeFileSync(join(outside, 'folder/x.json'), SECRET);
  writeFileSync(join(outside, 'folder/x.toml'), SECRET);
});
afterEach(() => {
  host.remove();
  rmSync(outside, { recursive: true });
});

const GUEST = Buffer.from(domainXml('guest', UUID_A, [{ address: NIC }])).toString();
const hook = (operation: string): Ran =>
  hostdev(['--root', host.root, 'hook', 'run', 'guest', operation, 'begin', '-'], { input: GUEST });

/** Nothing out there is changed, new, gone, or told of. */
function kept(...ran: Ran[]): void {
  expect(readdirSync(outside).sort()).toEqual(['folder', 'secret']);
  expect(readFileSync(join(outside, 'secret'), 'utf8')).toBe(SECRET);
  expect(readdirSync(join(outside, 'folder')).sort()).toEqual(['x.json', 'x.toml']);
  for (const name of ['x.json', 'x.toml']) expect(readFileSync(join(outside, 'folder', name), 'utf8')).toBe(SECRET);
  for (const { out, err, exit } of ran) {
    expect(out + err).not.toContain('secrethash');
    expect(out + err).not.toContain('root:');
    expect(exit).not.toBe(70);
  }
}

/** The ways out: an absolute link, and one that climbs. */
const WAYS = { absolute: (to: string) => to, climbing: (to: string) => `${'../'.repeat(20)}${to}` };

describe.each(Object.entries(WAYS))('%s links', (_, way) => {
  test.each(['run', 'run/hostdev', 'run/hostdev/journal', 'run/hostdev/bindings', 'run/hostdev/lock'])(
    'the folder %s',
    (folder) => {
      host.link(folder, way(join(outside, 'folder')));
      const bound = host.run('bind', NIC);
      expect({ exit: bound.exit, err: bound.err }).toEqual({
        exit: 1,
        err: expect.stringContaining(host.path(folder)),
      });
      expect(bound.err).toContain('symbolic link');
      const prepared = hook('prepare');
      expect(prepared.exit).toBe(1);
      expect(prepared.err).toContain('symbolic link');
      const others = [['status'], ['status', '--fix'], ['list'], ['journal', 'list'], ['unbind', NIC]];
      kept(bound, prepared, hook('started'), hook('release'), ...others.map((args) => host.run(...args)));
    },
  );

  test.each(['quarantine', 'started'])('the folder run/hostdev/%s', (folder) => {
    host.link(`run/hostdev/${folder}`, way(join(outside, 'folder')));
    kept(...['list', 'status'].map((verb) => host.run(verb)), hook('started'), host.run('status', '--fix'));
  });

  test.each(['hook.log', 'hook.log.1', 'lock/group-4', `lock/domain-${UUID_A}`])('the file run/hostdev/%s', (file) => {
    for (const target of ['secret', 'made']) {
      host.link(`run/hostdev/${file}`, way(join(outside, target)));
      kept(host.run('bind', NIC), hook('prepare'), hook('release'));
    }
  });

  test('a book: its device is left alone, and what it leads to is not quoted', () => {
    const file = `run/hostdev/bindings/${NIC}.json`;
    host.link(file, way(join(outside, 'secret')));
    const status = host.run('status');
    expect(status.out).toContain(`${host.path(file)} is a symbolic link`);
    const bound = host.run('bind', NIC);
    expect(bound.exit).toBe(1);
    kept(status, bound, host.run('status', '--fix'), host.run('unbind', NIC));
  });

  test('a journal entry', () => {
    const file = 'run/hostdev/journal/x-1-1.json';
    host.link(file, way(join(outside, 'folder/x.json')));
    const listed = host.run('journal', 'list');
    expect(listed.out + listed.err).toContain('symbolic link');
    kept(listed, host.run('status', '--fix'), host.run('journal', 'undo', 'x-1-1'));
  });

  test('the configuration', () => {
    for (const [at, target] of [
      ['etc/hostdev/hostdev.toml', 'secret'],
      ['etc/hostdev/conf.d', 'folder'],
      ['etc/hostdev/conf.d/10-x.toml', 'secret'],
      ['etc/hostdev', 'folder'],
    ] as const) {
      host.remove('etc');
      host.link(at, way(join(outside, target)));
      kept(host.run('config', 'check'), host.run('pool', 'list'), hook('prepare'), host.run('hook', 'install'));
    }
  });

  test('a configuration that is named by its path below the root', () => {
    const file = host.path('etc/nova/nova.conf');
    host.link('etc/nova/nova.conf', way(join(outside, 'secret')));
    const ran = host.run('config', 'check', '--config', file);
    expect({ exit: ran.exit, err: ran.err }).toEqual({ exit: 4, err: expect.stringContaining(file) });
    kept(ran);
  });

  test.each(['etc/libvirt/hooks/qemu.d', 'etc/libvirt/hooks', 'etc/libvirt', 'etc'])(
    'hook install through %s',
    (at) => {
      host.link(at, way(join(outside, 'folder')));
      const ran = host.run('hook', 'install');
      expect({ exit: ran.exit, err: ran.err }).toEqual({ exit: 1, err: expect.stringContaining('symbolic link') });
      kept(ran, host.run('hook', 'status'), host.run('hook', 'remove'));
    },
  );

  test.each(['qemu.d/90-hostdev', 'hostdev.conf'])('the file %s of the hook', (name) => {
    host.link(`etc/libvirt/hooks/${name}`, way(join(outside, 'secret')));
    kept(host.run('hook', 'install'), host.run('hook', 'status'), host.run('hook', 'remove'));
  });

  // Static executable: it makes the lock's folder and the notes before node is there.
  test.each(['run', 'run/hostdev', 'run/hostdev/lock', 'run/hostdev/started'])('the hook client and %s', (folder) => {
    host.link(folder, way(join(outside, 'folder')));
    host.folder('etc/libvirt/hooks/qemu.d');
    cpSync('build/Release/hostdev-native', host.path('etc/libvirt/hooks/qemu.d/90-hostdev'));
    host.file('etc/libvirt/hooks/hostdev.conf', `node=${process.execPath}\ncli=${CLI}\nroot=${host.root}\n`);
    if (folder.endsWith('started')) host.file(`run/hostdev/bindings/${NIC}.json`, '{}');
    const client = host.path('etc/libvirt/hooks/qemu.d/90-hostdev');
    const ran = ['prepare', 'started', 'stopped', 'release'].map((operation) =>
      runCommand(client, ['guest', operation, 'begin', '-'], { input: GUEST }),
    );
    kept(...ran);
    expect(existsSync(join(outside, 'folder/hostdev'))).toBe(false);
  });
});

test('links that stay inside: the configuration is read through them, our own state is not', () => {
  host.file('srv/config/hostdev.toml', '[hook]\nunmanaged = "check"\n');
  host.link('etc/hostdev', '/srv/config');
  const checked = host.run('config', 'check', '-j');
  expect(checked.json).toMatchObject({ files: [host.path('etc/hostdev/hostdev.toml')] });
  host.folder('srv/state');
  host.link('run/hostdev', '/srv/state');
  expect(host.run('bind', NIC).exit).toBe(1);
  expect(host.names('srv/state')).toEqual([]);
});
