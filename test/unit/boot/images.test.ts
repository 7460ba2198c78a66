/**
 * An initramfs is looked into, not believed: archives of every kind that the kernel takes, broken ones, and what
 * `boot install`, `refresh`, `remove` and `doctor` make of them below another root, where no image is made.
 */
import { execFileSync } from 'node:child_process';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { memberOf } from '../../../src/boot/cpio.ts';
import { has, isLacking } from '../../lacking.ts';
import { hostdev, RELEASE, StaticHost } from '../../mock/tree.ts';

/** A "newc" archive, with its trailer. */
function archive(files: Record<string, string>): Buffer {
  const member = (name: string, text: string): Buffer => {
    const hex = (n: number): string => n.toString(16).padStart(8, '0');
    const fields = [1, 0o100644, 0, 0, 1, 0, Buffer.byteLength(text), 0, 0, 0, 0, name.length + 1, 0].map(hex).join('');
    const head = Buffer.from(`070701${fields}${name}\0`);
    const pad = (b: Buffer): Buffer => Buffer.concat([b, Buffer.alloc((4 - (b.length % 4)) % 4)]);
    return Buffer.concat([pad(head), pad(Buffer.from(text))]);
  };
  return Buffer.concat([...Object.entries(files).map(([n, t]) => member(n, t)), member('TRAILER!!!', '')]);
}

const WANTED = 'var/lib/hostdev/boot.table';
const early = Buffer.concat([archive({ 'kernel/x86/microcode/x.bin': 'code' }), Buffer.alloc(300)]);
const main = archive({ 'scripts/init-top/ORDER': 'x', './var/lib/hostdev/boot.table': 'the table', last: 'y' });

describe('the member of an initramfs', () => {
  test('plain, behind microcode, in gzip, in the first archive', async () => {
    for (const image of [main, Buffer.concat([early, main]), Buffer.concat([early, gzipSync(main)]), gzipSync(main)]) {
      const { bytes, names } = await memberOf(image, WANTED);
      expect(bytes?.toString()).toBe('the table');
      expect(names).toContain('scripts/init-top/ORDER');
    }
  });
  test.skipIf(isLacking(has('zstd') ? null : 'zstd is not here: apt-get install zstd'))('in zstd', async () => {
    const packed = execFileSync('zstd', ['-qc'], { input: main });
    expect((await memberOf(Buffer.concat([early, packed]), WANTED)).bytes?.toString()).toBe('the table');
    expect((await memberOf(Buffer.concat([early, packed]), 'nothing')).bytes).toBeNull();
  });
  test('none; an empty image', async () => {
    expect((await memberOf(archive({ a: 'b' }), WANTED)).bytes).toBeNull();
    expect((await memberOf(Buffer.alloc(0), WANTED)).bytes).toBeNull();
  });
  test('cut, foreign, packed in an unknown way: an error that says so', async () => {
    for (let n = 1; n < main.length - 200; n += 37)
      await expect(memberOf(main.subarray(0, n), 'nothing'), `${n}`).rejects.toThrow(/archive|packed/);
    await expect(memberOf(gzipSync(main).subarray(0, 60), 'nothing')).rejects.toThrow();
    await expect(memberOf(Buffer.from('MZ and so on'), WANTED)).rejects.toThrow('packed in a way that is not known');
    await expect(memberOf(Buffer.from('070701zzzzz'), WANTED)).rejects.toThrow('no archive that the kernel reads');
  });
});

const NIC = '0000:23:00.0';
const HOOK = 'usr/share/initramfs-tools/hooks/hostdev';
const PROGRAM = 'usr/bin/hostdev-native';
const IMAGE = `boot/initrd.img-${RELEASE}`;

describe('boot install, refresh and remove', () => {
  let h: StaticHost;
  beforeEach(() => {
    h = new StaticHost({
      devices: [
        { address: '0000:20:04.0', ids: '8086:1901', class: '060400' },
        { address: NIC, ids: '8086:10d3', class: '020000', group: 7, below: ['0000:20:04.0'] },
      ],
      files: { 'proc/cmdline': 'root=/dev/sda1\n', [`lib/modules/${RELEASE}/kernel/x`]: '' },
    });
    h.file(
      'etc/hostdev/hostdev.toml',
      `[[device]]\naddress = "${NIC}"\npath = "pci0000:20/04.0/00.0"\nvendor_id = "8086"\nproduct_id = "10d3"\ndriver = "vfio"\n`,
    );
    h.folder('etc/initramfs-tools');
    h.file(HOOK, '#!/bin/sh\n');
    h.file(PROGRAM, '');
    h.file(IMAGE, archive({ 'scripts/functions': '' }));
  });
  afterEach(() => h.remove());
  const run = (...words: string[]) => hostdev(['--root', h.root, ...words]);
  const findings = (): string[] =>
    (run('doctor', '-j').json as unknown as { findings: { id: string }[] }).findings.map((f) => f.id);
  const inImage = (): void => h.file(IMAGE, archive({ 'scripts/functions': '', [WANTED]: h.bytes(WANTED) }));

  test('the table is written, and told; a dry run writes none; no image is made below another root', () => {
    expect(run('boot', 'install', '-n', '-j')).toMatchObject({ exit: 0, json: { changed: true } });
    expect(h.names('var/lib/hostdev')).toEqual([]);
    const { exit, json } = run('boot', 'install', '-j');
    expect(exit).toBe(0);
    expect(json).toMatchObject({
      changed: true,
      table: { devices: [{ address: NIC, path: 'pci0000:20/04.0/00.0', driver: 'vfio-pci' }] },
      left: [],
      images: [{ release: RELEASE, maker: 'initramfs-tools', made: false }],
      warnings: [{ id: 'initramfs' }],
    });
    expect(h.bytes(WANTED)).toMatch(
      /^hostdev boot table 1\n[\s\S]*\nroot \/dev\/sda1\ndevice pci0000:20[\s\S]*\nend [0-9a-f]{16}\n$/,
    );
    expect(findings()).toContain('initramfs-other');
    inImage();
    const again = run('boot', 'refresh', '-j').json;
    expect(again).toMatchObject({ changed: false });
    expect(again).not.toHaveProperty('warnings');
    expect(findings().filter((f) => f.startsWith('initramfs'))).toEqual([]);
  });

  test('the initramfs did not do its work at this boot: doctor tells each device and why', () => {
    const device = { path: 'pci0000:20/04.0/00.0', address: NIC, driver: 'vfio-pci', done: false };
    const early = { at: '2026-11-26T00:00:00Z', table: null, problem: null, devices: [] as object[] };
    const report = (more: object): void =>
      h.file(
        'run/hostdev/boot.json',
        JSON.stringify({ schema: 1, boot: null, at: null, off: false, wishes: [], early: { ...early, ...more } }),
      );
    report({ problem: 'the table is cut short' });
    expect(findings()).toContain('initramfs-failed');
    report({ devices: [{ ...device, reason: 'another device is in its slot' }] });
    expect(findings()).toContain('initramfs-failed');
    report({ devices: [{ ...device, done: true, reason: null }] });
    expect(findings()).not.toContain('initramfs-failed');
  });

  test('wishes change: doctor tells, refresh writes', () => {
    run('boot', 'install');
    inImage();
    const toml = h.bytes('etc/hostdev/hostdev.toml');
    h.file('etc/hostdev/hostdev.toml', toml.replace('"vfio"', '"none"'));
    expect(findings()).toContain('initramfs-stale');
    expect(run('boot', 'refresh', '-j').json).toMatchObject({
      changed: true,
      table: { devices: [{ driver: 'none' }] },
    });
    expect(findings()).toContain('initramfs-other');
    h.file(WANTED, 'half');
    expect(findings()).toContain('initramfs-stale');
  });

  test('the host has come to stand on the NIC: out of the table, and said', () => {
    run('boot', 'install');
    inImage();
    expect(run('boot', 'refresh', '--guards', '-j').json).toMatchObject({ changed: false });
    h.folder('sys/bus/pci/drivers/e1000e');
    h.link(`sys/bus/pci/devices/${NIC}/driver`, '../../../bus/pci/drivers/e1000e');
    const home = h.homes.get(NIC) ?? `sys/bus/pci/devices/${NIC}`;
    h.file(`${home}/net/eth0/operstate`, 'up\n');
    h.file(`${home}/net/eth0/flags`, '0x1003\n');
    h.link('sys/class/net/eth0', `${'../'.repeat(3)}${home}/net/eth0`);
    h.file(
      'proc/net/route',
      'Iface\tDestination\tGateway\tFlags\neth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n',
    );
    expect(findings()).toContain('initramfs-vital');
    const vital = [{ address: NIC, reason: expect.stringMatching(/^eth0 has the default route/) }];
    expect(run('status', '-j').json).toMatchObject({ initramfs_vital: vital });
    expect(run('boot', 'status', '-j').json).toMatchObject({ initramfs_vital: vital });
    for (const command of [['status'], ['boot', 'status']])
      expect(run(...command).out).toContain(
        `${NIC} is to be bound by the initramfs at the next boot, and eth0 has the default route`,
      );
    const { json, err } = run('boot', 'refresh', '--guards', '-j');
    expect(err).toContain(`${NIC} is to be bound by the initramfs, and eth0 has the default route`);
    expect(json).toMatchObject({ changed: true, table: { devices: [] }, left: [{ address: NIC, guard: 'network' }] });
    expect(run('status', '-j').json).toMatchObject({ initramfs_vital: [] });
    expect(run('boot', 'status').out).not.toContain('at the next boot');
  });

  test.each([HOOK, PROGRAM])('without %s nothing is written, and who brings it is said', (file) => {
    h.remove(file);
    for (const more of [['-n'], []])
      expect(run('boot', 'install', '-j', ...more)).toMatchObject({
        exit: 3,
        json: {
          error: {
            code: 'HOSTDEV_INITRAMFS_MAKER',
            message: expect.stringContaining(`/${file}`),
            hint: expect.stringContaining('The Debian package brings it'),
          },
        },
      });
    expect(h.names('var/lib/hostdev')).toEqual([]);
  });

  test('remove; refresh where nothing is installed; makers that are not handled', () => {
    expect(run('boot', 'refresh', '-j')).toMatchObject({
      exit: 4,
      json: { error: { code: 'HOSTDEV_BOOT_NOT_INSTALLED' } },
    });
    run('boot', 'install');
    inImage();
    expect(run('boot', 'remove', '-j').json).toMatchObject({ changed: true, table: null });
    expect(h.names('var/lib/hostdev')).toEqual([]);
    expect(findings()).toContain('initramfs-other');
    h.file('etc/kernel/install.conf', 'layout=uki\n');
    expect(run('boot', 'install', '-j')).toMatchObject({
      exit: 3,
      json: { error: { code: 'HOSTDEV_INITRAMFS_MAKER' } },
    });
    h.remove('etc/kernel');
    h.remove('etc/initramfs-tools');
    h.file('etc/mkinitcpio.conf', '');
    const { json } = run('boot', 'install', '-j');
    expect(json).toMatchObject({
      error: { code: 'HOSTDEV_INITRAMFS_MAKER', message: expect.stringContaining('mkinitcpio') },
    });
  });
});
