/**
 * The units and rules that the package ships: systemd takes them, they name what is there, and the package has them
 * all.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
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

  test('it runs a command that is there, in 30 s, fails nothing, and does nothing without a configuration', () => {
    const [line = ''] = values(unit, 'ExecStart');
    const [program, noun, verb, ...words] = line.split(' ');
    expect([program, values(unit, 'TimeoutStartSec'), values(unit, 'Type')]).toEqual([
      '/usr/bin/hostdev',
      ['30s'],
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
    expect(values(unit, 'ConditionPathExistsGlob')).toEqual([
      '|/etc/hostdev/hostdev.toml',
      '|/etc/hostdev/conf.d/*.toml',
    ]);
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

test('the package has all of them', () => {
  const install = readFileSync('debian/hostdev.install', 'utf8');
  expect(install).toContain('systemd/*.service lib/systemd/system\n');
  expect(install).toContain('systemd/60-hostdev.rules lib/udev/rules.d\n');
  const named = execFileSync('ls', ['systemd'], { encoding: 'utf8' });
  expect(named.split('\n').filter((n) => n.endsWith('.rules'))).toEqual(['60-hostdev.rules']);
});
