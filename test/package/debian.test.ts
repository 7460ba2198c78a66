/**
 * The Debian packages in fresh roots: what installing, upgrading, removing and purging leave, and what a removal
 * refuses. `npm run test:package`, as root.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { has, isLacking } from '../lacking.ts';
import { buildPackages, difference, Root } from './root.ts';

const HOOK = 'etc/libvirt/hooks/qemu.d/90-hostdev';
const CONF = 'etc/libvirt/hooks/hostdev.conf';
const UUID = '6f2f1c0e-52a1-4b6f-9d5c-6c9bb9f6f001';

let next: string[];
let now: string[];

beforeAll(() => {
  now = buildPackages('0.1.0');
  next = buildPackages('0.1.1');
});

/** A binding in the books, of a device that a guest has. */
function book(root: Root, address: string): void {
  mkdirSync(root.path('run/hostdev/bindings'), { recursive: true });
  const state = (driver: string, override: string | null) => ({ driver, override });
  writeFileSync(
    root.path('run/hostdev/bindings', `${address}.json`),
    JSON.stringify({
      schema: 2,
      address,
      group: 7,
      boot: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
      inode: null,
      holds: [{ owner: `domain:${UUID}`, name: 'web1', managed: false, libvirt: null }],
      before: state('igbvf', null),
      after: state('vfio-pci', 'vfio-pci'),
      since: '2026-11-26T00:00:00.000Z',
      prepared: {},
      note: null,
    }),
  );
}

/** What the oldest system that is promised has (Ubuntu 22.04); Debian 12, 13 and Ubuntu 24.04 have newer ones. */
const OLDEST: Record<string, [number, number]> = { libc6: [2, 35], 'libstdc++6': [12, 0], 'libgcc-s1': [12, 0] };

test('they depend on nothing that Ubuntu 22.04 has not, but for a node, which hostdev-node is', () => {
  for (const deb of now) {
    const depends = execFileSync('dpkg-deb', ['--field', deb, 'Depends'], { encoding: 'utf8' }).trim();
    const wanted = depends.split(', ').filter((d) => d !== 'nodejs (>= 20.19) | hostdev-node');
    expect(wanted.length).toBe(depends.split(', ').length - (deb.includes('hostdev-node') ? 0 : 1));
    for (const want of wanted) {
      const [, name = '', major = '', minor = '0'] = /^(\S+) \(>= (\d+)(?:\.(\d+))?[^)]*\)$/.exec(want) ?? [];
      const [most = -1, than = -1] = OLDEST[name] ?? [];
      expect([want, most * 1000 + than >= Number(major) * 1000 + Number(minor)]).toEqual([want, true]);
    }
  }
});

test.skipIf(isLacking(has('lintian') ? null : 'lintian is not here: apt-get install lintian'))(
  'lintian is clean',
  () => {
    const { status, stdout } = spawnSync('lintian', ['--fail-on', 'error,warning', ...now], { encoding: 'utf8' });
    expect([status, stdout]).toEqual([0, '']);
  },
);

describe.each([
  ['bookworm', true],
  ['trixie', false],
])('%s', (suite, withNode) => {
  let root: Root;
  let before: Map<string, string>;
  const debs = () => now.filter((d) => withNode || !d.includes('hostdev-node'));
  const purge = 'dpkg --purge hostdev && (dpkg --purge hostdev-node 2>&1 || true)';

  beforeAll(() => {
    root = new Root(suite);
    before = root.snapshot();
  });
  afterAll(() => root.remove());

  test('installs, works, and nothing is left of it after purge', () => {
    root.install(debs());
    expect(root.ok('hostdev --version')).toBe('hostdev 0.1.0\n');
    expect(JSON.parse(root.ok('hostdev list -j')).devices.length).toBeGreaterThan(0);
    const doctor = root.sh('hostdev doctor -j');
    expect([0, 3]).toContain(doctor.code);
    expect(JSON.parse(doctor.stdout).schema).toBe(1);
    // The native part is loaded: without it a dry run of a change says so.
    expect(root.sh('hostdev hook install -n').stderr).not.toContain('hostdev.node');
    expect(root.isThere('etc/libvirt')).toBe(false);
    root.ok('dpkg --remove hostdev');
    expect(root.isThere('usr/lib/hostdev')).toBe(false);
    root.ok(purge);
    expect(difference(before, root.snapshot())).toEqual([]);
  });

  test('an upgrade leaves the hook, whose old copy works and is told; removal takes it out', () => {
    root.install(debs());
    root.ok('hostdev hook install');
    root.ok('hostdev hook status');
    const installed = readFileSync(root.path(HOOK));
    root.install(next.filter((d) => !d.includes('hostdev-node')));
    expect(root.ok('hostdev --version')).toBe('hostdev 0.1.1\n');
    expect(readFileSync(root.path(HOOK)).equals(installed)).toBe(true);
    root.ok('hostdev hook status');
    // A copy of another version is told, and is still a hook.
    writeFileSync(root.path(HOOK), Buffer.concat([installed, Buffer.from('older')]), { mode: 0o755 });
    const status = root.sh('hostdev hook status');
    expect(status.code).toBe(3);
    expect(status.stdout).toContain('another version');
    root.ok(`echo '<domain><name>bare</name></domain>' | /${HOOK} bare prepare begin -`);
    root.ok('dpkg --remove hostdev');
    expect(root.isThere(HOOK) || root.isThere('etc/libvirt')).toBe(false);
    root.ok(purge);
    expect(difference(before, root.snapshot())).toEqual([]);
  });

  test('what makers of an initramfs call does nothing without a table; removal takes the table away', () => {
    root.install(debs());
    for (const file of ['hooks/hostdev', 'scripts/init-top/hostdev'])
      for (const word of ['', 'prereqs']) expect(root.ok(`/usr/share/initramfs-tools/${file} ${word} 2>&1`)).toBe('');
    root.ok("bash -ec '. /usr/lib/dracut/modules.d/90hostdev/module-setup.sh; ! check'");
    root.ok('mkdir -p /var/lib/hostdev; echo half > /var/lib/hostdev/boot.table');
    root.ok("bash -ec '. /usr/lib/dracut/modules.d/90hostdev/module-setup.sh; check'");
    root.ok('dpkg --remove hostdev');
    expect(root.isThere('var/lib/hostdev/boot.table')).toBe(false);
    root.ok(purge);
    expect(difference(before, root.snapshot())).toEqual([]);
  });

  test('removal while a device is bound is refused by name; forced, the hook says so and fails nothing', () => {
    root.install(debs());
    root.ok('hostdev hook install');
    const [device] = JSON.parse(root.ok('hostdev list -j')).devices;
    book(root, device.address);
    const refused = root.sh('dpkg --remove hostdev 2>&1');
    expect(refused.code).not.toBe(0);
    expect(refused.stdout).toContain(device.address);
    expect(refused.stdout).toContain('web1');
    expect(refused.stdout).toContain('HOSTDEV_REMOVE=force');
    expect(root.ok('hostdev --version')).toBe('hostdev 0.1.0\n');
    root.ok('hostdev hook status');

    root.ok('dpkg --remove hostdev 2>&1', { HOSTDEV_REMOVE: 'force' });
    expect(readFileSync(root.path(CONF), 'utf8')).toMatch(/^removed=/m);
    const xml = `<domain><name>web1</name><uuid>${UUID}</uuid><devices><hostdev mode="subsystem" type="pci" managed="no"><source><address domain="0" bus="0" slot="3" function="0"/></source></hostdev></devices></domain>`;
    for (const call of ['prepare begin -', 'start begin -', 'started begin -', 'stopped end -', 'release end -']) {
      const said = root.sh(`echo '${xml}' | /${HOOK} web1 ${call}`);
      expect([call, said.code, said.stdout, said.stderr.split('\n').length]).toEqual([call, 0, '', 2]);
      expect(said.stderr).toContain('removed');
    }
    // Installed again it does its work again.
    root.install(debs());
    root.ok('hostdev hook status');
    // Merely missing is not removed: a guest with devices must not start without its hook.
    root.ok('mv /usr/lib/hostdev /usr/lib/hostdev.away');
    const missing = root.sh(`echo '${xml}' | /${HOOK} web1 prepare begin -`);
    expect(missing.code).toBe(1);
    expect(missing.stderr).toContain('hostdev is gone from /usr/lib/hostdev/dist/hostdev.js');
    root.ok('mv /usr/lib/hostdev.away /usr/lib/hostdev');

    root.ok('dpkg --remove hostdev 2>&1', { HOSTDEV_REMOVE: 'force' });
    expect(existsSync(root.path(HOOK))).toBe(true);
    root.ok(purge);
    expect(difference(before, root.snapshot())).toEqual([]);
  });
});
