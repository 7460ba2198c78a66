/**
 * The units and rules that the package ships: systemd takes them, they name what is there, and the package has them
 * all.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { STAGES } from '../../../src/boot/report.ts';
import { COMMANDS } from '../../../src/cli/commands.ts';
import { ERRORS, EXIT } from '../../../src/errors.ts';
import { has, isLacking } from '../../lacking.ts';

const UNITS = readdirSync('systemd').filter((n) => n.endsWith('.service'));
const text = (name: string): string => readFileSync(join('systemd', name), 'utf8');
const values = (unit: string, key: string): string[] =>
  text(unit)
    .split('\n')
    .flatMap((l) => (l.startsWith(`${key}=`) ? l.slice(key.length + 1) : []));
const folder = mkdtempSync(join(tmpdir(), 'hostdev-units-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe.each(UNITS)('%s', (unit) => {
  test.skipIf(isLacking(has('systemd-analyze') ? null : 'systemd-analyze is not here: apt-get install systemd'))(
    'systemd-analyze verify is clean',
    () => {
      for (const n of UNITS) copyFileSync(join('systemd', n), join(folder, n));
      // The program need not be installed.
      writeFileSync(join(folder, unit), text(unit).replaceAll('/usr/bin/hostdev', '/bin/true'));
      const { status, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', join(folder, unit)], {
        encoding: 'utf8',
      });
      expect([status, stderr]).toEqual([0, '']);
    },
  );

  test('it runs a command that is there, in a time, fails nothing, and does nothing without what it is for', () => {
    const ofTable = unit.startsWith('hostdev-boot-');
    const atEnd = unit === 'hostdev-boot-refresh.service';
    const [line = ''] = values(unit, atEnd ? 'ExecStop' : 'ExecStart');
    const [program, noun, verb, ...words] = line.split(' ');
    expect([program, values(unit, atEnd ? 'TimeoutStopSec' : 'TimeoutStartSec'), values(unit, 'Type')]).toEqual([
      '/usr/bin/hostdev',
      // Making an image of each kernel; a boot waits for none of these.
      [ofTable ? '30min' : '30s'],
      ['oneshot'],
    ]);
    const command = COMMANDS.find((c) => c.name === `${noun} ${verb}`);
    for (const [n, word] of words.entries())
      if (word.startsWith('--')) expect(Object.keys(command?.own ?? {})).toContain(word.slice(2));
      else if (words[n - 1] === '--stage') expect(STAGES.map(String)).toContain(word);
      else expect([words[n - 1], word]).toEqual(['--device', '%i']);
    const success = values(unit, 'SuccessExitStatus').join(' ').split(' ').map(Number);
    expect(new Set(success)).toEqual(
      new Set([...Object.values(EXIT), ...Object.values(ERRORS).map((e) => e.exit)].filter((n) => n !== 0)),
    );
    expect(values(unit, 'ConditionPathExistsGlob')).toEqual(
      ofTable ? [] : ['|/etc/hostdev/hostdev.toml', '|/etc/hostdev/conf.d/*.toml'],
    );
    expect(values(unit, 'ConditionPathExists')).toEqual(ofTable ? ['/var/lib/hostdev/boot.table'] : []);
  });

  test('nothing in it that is known to break us', () => {
    expect(text(unit)).not.toMatch(
      /^(?:MemoryDenyWriteExecute|PrivateDevices|PrivateNetwork|ProtectKernelModules|RuntimeDirectory)=/m,
    );
    expect(text(unit)).not.toContain('systemd-udev-settle');
  });
});

test('the boot comes before whoever wants the devices; a PF’s driver may come again', () => {
  expect(values('hostdev-boot.service', 'Before').join(' ').split(' ')).toEqual(
    expect.arrayContaining([
      'libvirtd.service',
      'virtqemud.service',
      'libvirt-guests.service',
      'display-manager.service',
    ]),
  );
  expect(values('hostdev-boot.service', 'WantedBy')).toEqual(['multi-user.target']);
  for (const unit of UNITS.filter((u) => u.includes('@'))) {
    expect(values(unit, 'RemainAfterExit')).toEqual([]);
    expect(values(unit, 'After')).toEqual(['hostdev-boot.service']);
  }
});

test('the rules start units that are there, and no line of them is half', () => {
  const rules = text('60-hostdev.rules')
    .split('\n')
    .filter((l) => l !== '' && !l.startsWith('#'));
  const wanted = rules.flatMap((l) => /ENV\{SYSTEMD_WANTS\}\+="([^"]+)"/.exec(l)?.[1] ?? []);
  expect(wanted.map((w) => w.replace('$kernel', ''))).toEqual(['hostdev-pf@.service', 'hostdev-device@.service']);
  for (const w of wanted) expect(UNITS).toContain(w.replace('$kernel', ''));
  for (const line of rules) expect(line).toMatch(/^(?:[A-Z_]+(?:\{[\w/]+\})?(?:==|!=|\+=|=)"[^"]*"(?:, )?)+$/);
});

/** Of udev's own reading of the rules, on a device of a tree that stands for /sys in a mount namespace. */
function wantedBy(
  action: 'add' | 'bind' | 'remove',
  device: { totalVfs?: string; vf?: true },
  report: boolean,
): string {
  const top = mkdtempSync(join(tmpdir(), 'hostdev-udev-'));
  try {
    const folder = join(top, 'sys/devices/pci0000:21/0000:21:00.0');
    mkdirSync(folder, { recursive: true });
    mkdirSync(join(top, 'sys/bus/pci/devices'), { recursive: true });
    writeFileSync(join(folder, 'uevent'), 'DRIVER=igb\nPCI_SLOT_NAME=0000:21:00.0\n');
    symlinkSync('../../../bus/pci', join(folder, 'subsystem'));
    if (device.totalVfs !== undefined) writeFileSync(join(folder, 'sriov_totalvfs'), `${device.totalVfs}\n`);
    mkdirSync(join(folder, '../0000:21:00.1'));
    if (device.vf) symlinkSync('../0000:21:00.1', join(folder, 'physfn'));
    const script = `mount --bind ${top}/sys /sys && mount -t tmpfs none /run && mkdir -p /run/udev/rules.d /run/hostdev/lock &&
      cp systemd/60-hostdev.rules /run/udev/rules.d/ ${report ? '&& touch /run/hostdev/lock/boot' : ''} &&
      exec udevadm test --action=${action} /sys/devices/pci0000:21/0000:21:00.0 2>&1`;
    // systemd 252 takes a tree that is no sysfs only when told so.
    const env = { ...process.env, SYSTEMD_DEVICE_VERIFY_SYSFS: '0' };
    const { status, stdout } = spawnSync('unshare', ['-m', 'sh', '-c', script], { encoding: 'utf8', env });
    expect(status, stdout).toBe(0);
    // A word that udev does not understand is named with the file.
    expect(stdout).not.toMatch(/60-hostdev\.rules:\d+/);
    return /^SYSTEMD_WANTS=(.*)$/m.exec(stdout)?.[1] ?? '';
  } finally {
    rmSync(top, { recursive: true });
  }
}

const noUdev =
  process.geteuid?.() !== 0
    ? 'udev is asked in a mount namespace of its own, by root'
    : !has('udevadm')
      ? 'udevadm is missing: apt-get install udev'
      : null;

test.skipIf(isLacking(noUdev))(
  'udev itself reads the rules: a PF at its driver, a device that is plugged in, and nothing else',
  () => {
    const PF = 'hostdev-pf@0000:21:00.0.service';
    const DEVICE = 'hostdev-device@0000:21:00.0.service';
    expect([
      wantedBy('bind', { totalVfs: '7' }, true),
      wantedBy('bind', { totalVfs: '7' }, false),
      wantedBy('bind', { totalVfs: '0' }, true),
      wantedBy('bind', {}, true),
      wantedBy('bind', { vf: true }, true),
      wantedBy('add', { totalVfs: '7' }, true),
      wantedBy('add', {}, true),
      wantedBy('add', {}, false),
      wantedBy('add', { vf: true }, true),
      wantedBy('remove', { totalVfs: '7' }, true),
    ]).toEqual([PF, PF, '', '', '', DEVICE, DEVICE, '', '', '']);
  },
);

test('what keeps the table of the initramfs right begins with the table, not only at the next boot', () => {
  expect(values('hostdev-boot-guard.path', 'PathExists')).toEqual(['/var/lib/hostdev/boot.table']);
  expect(values('hostdev-boot-guard.path', 'Unit')).toEqual(['hostdev-boot-guard.timer']);
  expect(values('hostdev-boot-guard.path', 'WantedBy')).toEqual(['multi-user.target']);
  expect(values('hostdev-boot-guard.timer', 'Wants')).toEqual(['hostdev-boot-refresh.service']);
});

test('the package has all of them', () => {
  const install = readFileSync('debian/hostdev.install', 'utf8');
  expect(install).toContain('systemd/*.service lib/systemd/system\n');
  expect(install).toContain('systemd/*.timer lib/systemd/system\nsystemd/*.path lib/systemd/system\n');
  expect(install).toContain('systemd/60-hostdev.rules lib/udev/rules.d\n');
  const named = execFileSync('ls', ['systemd'], { encoding: 'utf8' });
  expect(named.split('\n').filter((n) => n.endsWith('.rules'))).toEqual(['60-hostdev.rules']);
});
