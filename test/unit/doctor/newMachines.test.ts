/** `doctor --cloud-init`: user-data for machines of the same kind; Juju's with nothing that it refuses. */
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { hostdev, StaticHost } from '../../mock/tree.ts';

const GPU = '0000:83:00.0';
let h: StaticHost;
beforeEach(() => {
  h = new StaticHost({
    devices: [
      { address: '0000:80:02.0', ids: '8086:6f04', class: '060400' },
      { address: GPU, ids: '10de:1bb0', class: '030000', group: 7, below: ['0000:80:02.0'] },
    ],
    files: {
      'proc/cmdline': 'root=/dev/sda1 quiet iommu=pt vfio_iommu_type1.allow_unsafe_interrupts=1\n',
      'proc/cpuinfo': 'processor\t: 0\nvendor_id\t: GenuineIntel\n',
    },
  });
});
afterEach(() => h.remove());

const wish = (): void =>
  h.file(
    'etc/hostdev/hostdev.toml',
    `[[device]]\naddress = "${GPU}"\npath = "pci0000:80/02.0/00.0"\nvendor_id = "10de"\nproduct_id = "1bb0"\nserial = "00-1b-21-ff-ff-3c-4d-5e"\ndriver = "vfio"\ngroup = "endpoints"\n`,
  );
const run = (...words: string[]) => hostdev(['--root', h.root, 'doctor', ...words]);

/** The commands that the text runs, as sh gets them. */
const commandsOf = (lines: readonly string[]): string[] =>
  lines
    .slice(lines.indexOf('runcmd:') + 1)
    .map((l) => l.slice('  - '.length))
    .map((l) => (l.startsWith('"') ? (JSON.parse(l) as string) : l.slice(1, -1)));

test('user-data: package, wishes without the numbers of a card, kernel words, the initramfs last', () => {
  wish();
  const { exit, out } = run('--cloud-init');
  expect(exit).toBe(0);
  const lines = out.trimEnd().split('\n');
  expect(lines[0]).toBe('#cloud-config');
  expect(lines.filter((l) => /^\w+:/.test(l))).toEqual(['runcmd:']);
  expect(out).not.toContain('serial');
  expect(out).toContain('intel_iommu=on iommu=pt vfio_iommu_type1.allow_unsafe_interrupts=1');
  expect(out).toContain('maas $PROFILE tags create name=hostdev kernel_opts="intel_iommu=on iommu=pt');
  const commands = commandsOf(lines);
  expect(commands.slice(2).map((c) => c.split(' || ')[1])).toEqual([
    'apt-get install --yes hostdev',
    'update-grub',
    'hostdev boot install',
    'hostdev hook install',
  ]);
  for (const c of commands) expect(c).toMatch(/^systemd-detect-virt --quiet --container \|\| /);
});

test('files, written by sh as they are meant; in a container nothing is', () => {
  wish();
  const files = commandsOf(run('--cloud-init').out.trimEnd().split('\n')).slice(0, 2);
  for (const [container, code] of [
    [true, 0],
    [false, 1],
  ] as const) {
    h.file('bin/systemd-detect-virt', `#!/bin/sh\nexit ${code}\n`);
    chmodSync(join(h.root, 'bin/systemd-detect-virt'), 0o755);
    h.remove('made');
    for (const c of files)
      execFileSync('sh', ['-c', c.replaceAll('/etc/', `${h.root}/made/etc/`)], {
        env: { PATH: `${h.root}/bin:${process.env.PATH}` },
      });
    if (container) expect(existsSync(join(h.root, 'made'))).toBe(false);
  }
  expect(h.bytes('made/etc/default/grub.d/90-hostdev.cfg')).toBe(
    'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT intel_iommu=on iommu=pt vfio_iommu_type1.allow_unsafe_interrupts=1"\n',
  );
  const toml = h.bytes('made/etc/hostdev/conf.d/80-cloud-init.toml');
  expect(toml).toContain(`[[device]]\naddress = "${GPU}"\npath = "pci0000:80/02.0/00.0"\n`);
  // It is read as it was meant.
  h.remove('etc/hostdev');
  h.file('etc/hostdev/conf.d/80-cloud-init.toml', toml);
  expect(hostdev(['--root', h.root, 'wish', 'list', '-j']).json).toMatchObject({
    wishes: [{ address: GPU, wished_address: GPU, driver: 'vfio', group: 'endpoints' }],
    mistakes: [],
  });
});

test('for Juju: the model’s value as a whole, and none of what it refuses', () => {
  wish();
  const { exit, json } = run('--cloud-init', '--juju', '-j');
  expect(exit).toBe(0);
  const { user_data: text } = json as unknown as { user_data: string };
  const rest = text.split('\n').filter((l) => !l.startsWith('#'));
  expect(rest[0]).toBe('cloudinit-userdata: |');
  expect(rest.slice(1).every((l) => l === '' || l.startsWith('  '))).toBe(true);
  expect(text).toContain('\n  postruncmd:\n');
  expect(text).not.toMatch(/^\s*(?:runcmd|bootcmd|users):/m);
});

test('no wishes: said, with the way to some; --juju alone is usage', () => {
  expect(run('--cloud-init', '-j')).toMatchObject({ exit: 4, json: { error: { code: 'HOSTDEV_WISH_ABSENT' } } });
  expect(run('--juju', '-j')).toMatchObject({ exit: 2, json: { error: { code: 'HOSTDEV_USAGE' } } });
});
