/**
 * Help and usage errors, for every command of the table: help shows what the command takes, and nothing that it
 * refuses; a hint names what the reader can give there.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Command, GlobalOption } from '../../../src/cli/command.ts';
import { COMMANDS, GLOBALS } from '../../../src/cli/commands.ts';
import { helpText } from '../../../src/cli/help.ts';
import { findCommand, parse, unknownCommand } from '../../../src/cli/parse.ts';
import { usageOf } from '../../../src/cli/usage.ts';
import { HostdevError } from '../../../src/errors.ts';
import { hostdev, type Ran, StaticHost } from '../../mock/tree.ts';

const named = COMMANDS.map((c) => [c.name, c] as const);
const GLOBAL_NAMES = Object.keys(GLOBALS) as GlobalOption[];

/** The words of a command line that gives everything it must have, and the option that makes it change something. */
function whole(c: Command): string[] {
  const own = Object.entries(c.own ?? {}).filter(([name, o]) => o.required || name === c.changesWith);
  return [
    ...c.name.split(' '),
    ...c.args.filter((a) => !a.optional).map(() => 'x'),
    ...own.flatMap(([name, o]) => (o.type === 'string' ? [`--${name}`, '1'] : [`--${name}`])),
  ];
}

function usageFault(line: string[]): HostdevError | null {
  try {
    parse(line, findCommand(line).command);
    return null;
  } catch (e) {
    if (e instanceof HostdevError && e.code === 'HOSTDEV_USAGE') return e;
    throw e;
  }
}

const optionsIn = (help: string): string[] => [...help.matchAll(/^ {2}(?:-\w, )?--([\w-]+)/gm)].map(([, o]) => o ?? '');

describe.each(named)('%s', (_name, command) => {
  const help = helpText([command]);
  const shown = optionsIn(help);

  test('each option in its help is taken; each that is not there is refused', () => {
    for (const name of GLOBAL_NAMES) {
      const option = command.own?.[name] ?? GLOBALS[name];
      const given = option.type === 'string' ? [`--${name}`, 'x'] : [`--${name}`];
      const isSilent = command.isHook && name === 'json';
      expect([name, usageFault([...whole(command), ...given]) === null]).toEqual([
        name,
        shown.includes(name) || isSilent === true,
      ]);
    }
    for (const name of Object.keys(command.own ?? {})) expect(shown).toContain(name);
  });

  test('the guards are told where one can be lifted', () => {
    expect(help.includes('\nGuards:\n')).toBe(shown.includes('allow'));
  });

  test('what must be given stands in the usage line, which every usage error of it leads to', () => {
    const [usage = ''] = help.split('\n');
    expect(usage).toBe(`Usage: ${usageOf(command)}`);
    for (const [name, o] of Object.entries(command.own ?? {}))
      expect([name, usage.includes(`--${name}`)]).toEqual([name, o.required === true]);
    const wrong = hostdev([...command.name.split(' '), '--no-such-option', '-j']);
    expect(wrong.exit).toBe(2);
    if (!command.isHook) expect(wrong.json.error.hint).toBe(`Run 'hostdev ${command.name} --help'.`);
  });
});

test('a command without its words, or without an option that it must have, is told its usage', () => {
  for (const c of COMMANDS) {
    const line = whole(c);
    const must = line.length - c.name.split(' ').length;
    if (must === 0 || c.isHook || c.changesWith !== undefined) continue;
    const ran = hostdev([...line.slice(0, -1), '-j']);
    // A value without its option's end is an option without a value.
    expect([c.name, ran.exit]).toEqual([c.name, 2]);
  }
  const ran = hostdev(['vf', 'create', '01:00.0', '-j']);
  expect(ran.json.error).toMatchObject({
    message: "'vf create' needs --count N",
    hint: expect.stringMatching(/^Usage: hostdev vf create PF --count N /),
  });
});

test('options that only mean something with another', () => {
  for (const line of [
    ['status', '-n'],
    ['status', '--allow', 'disk'],
  ])
    expect(usageFault(line)?.message).toContain('without --fix');
  expect(usageFault(['status', '--fix', '-n', '--allow', 'disk'])).toBeNull();
});

describe('what was meant', () => {
  test.each([
    ['viomu sugest', 'viommu suggest'],
    ['grup lsit', 'group list'],
    ['stauts', 'status'],
    ['group-list', 'group list'],
    ['grouplist', 'group list'],
    ['bnd 01:00.0', 'bind'],
    ['vf remvoe', 'vf remove'],
    ['hook intsall', 'hook install'],
    ['jurnal', 'journal'],
  ])('%s: %s', (typed, meant) => {
    expect(unknownCommand(typed.split(' ')).hint).toContain(`Did you mean '${meant}'?`);
  });

  test('nothing near: the commands of the noun, or all', () => {
    expect(unknownCommand(['vf'])).toMatchObject({
      message: "'vf' needs a command",
      hint: "There are: vf create, vf list, vf remove, vf set. 'hostdev vf --help' shows all.",
    });
    expect(unknownCommand(['vf', 'delete']).hint).toBe(
      "There are: vf create, vf list, vf remove, vf set. 'hostdev vf --help' shows all.",
    );
    expect(unknownCommand(['xyzzy']).hint).toBe("'hostdev --help' shows all.");
  });

  test('an option', () => {
    expect(usageFault(['vf', 'create', 'x', '--conut', '1'])?.hint).toBe('Did you mean --count?');
    expect(usageFault(['list', '--jsn'])?.hint).toBe('Did you mean --json?');
    expect(usageFault(['bind', 'x', '--force'])?.hint).toContain('--allow=GUARD');
    // Not one that the command refuses.
    expect(usageFault(['list', '--force'])?.hint).not.toContain('--allow');
    expect(usageFault(['list', '--alow', 'disk'])?.hint).not.toContain('--allow');
  });

  test.each([
    [['bind', 'x', '--driver'], '--driver needs a value'],
    [['bind', 'x', '--driver', '-n'], '--driver needs a value'],
    [['bind', 'x', '--dry-run=yes'], '--dry-run takes no value'],
    [['-x', 'list'], "Unknown option '-x'"],
  ])('%j: %s', (line, text) => {
    expect(usageFault(line)?.message).toContain(text);
  });
});

describe('help of a noun', () => {
  test.each([...new Set(COMMANDS.map((c) => c.name.split(' ')[0] ?? ''))])('%s', (noun) => {
    const ran = hostdev([noun, '--help']);
    const its = COMMANDS.filter((c) => c.name.split(' ')[0] === noun);
    expect({ exit: ran.exit, err: ran.err }).toEqual({ exit: 0, err: '' });
    for (const c of COMMANDS) expect([c.name, ran.out.includes(usageOf(c))]).toEqual([c.name, its.includes(c)]);
  });

  test('of a word that is none: 2', () => {
    expect(hostdev(['nosuch', '--help']).exit).toBe(2);
    expect(hostdev(['vf', 'nosuch', '--help']).exit).toBe(2);
  });
});

describe('names that are no addresses', () => {
  const PF = '0000:02:00.0';
  const VF = '0000:02:10.0';
  const GONE = '0000:99:00.0';
  let host: StaticHost;
  beforeAll(() => {
    host = new StaticHost({
      devices: [
        { address: PF, ids: '8086:10c9', group: 2, driver: 'igb', totalVfs: 7 },
        { address: VF, ids: '8086:10ca', group: 3, driver: 'igbvf', physfn: PF },
        { address: '0000:03:00.0', ids: '1b36:0010', class: '010802', group: 6, driver: 'nvme' },
      ],
      drivers: { 'vfio-pci': 'vfio_pci' },
      net: { eth0: PF, eth9: VF },
      block: { nvme0n1: '0000:03:00.0' },
    });
  });
  afterAll(() => host.remove());
  const run = (...args: string[]): Ran => host.run(...args, '-j');
  const TEXTS: [string, string][] = [
    ['eth0', `"eth0" is ${PF}, a PF`],
    ['eth9', `"eth9" is ${VF}, a VF of ${PF}`],
    ['/dev/nvme0n1', `"/dev/nvme0n1" is 0000:03:00.0`],
    ['nvme0n1', `"nvme0n1" is 0000:03:00.0`],
    ['8086:10CA', `"8086:10CA" is ${VF}, a VF of ${PF}`],
  ];

  test.each(TEXTS)('log, group show and unbind --to-host -n of %s say: %s', (word, text) => {
    for (const line of [
      ['log', word],
      ['group', 'show', word],
      ['unbind', '-n', '--to-host', word],
    ])
      expect(run(...line)).toMatchObject({
        json: { warnings: expect.arrayContaining([expect.objectContaining({ id: 'named', text })]) },
      });
  });

  test('bind -n and vf list say it too; of an address nobody says anything', () => {
    expect(run('bind', '-n', 'eth9').json.warnings).toMatchObject([{ address: VF, id: 'named' }]);
    expect(run('vf', 'list', 'eth0').json.warnings).toMatchObject([{ address: PF, id: 'named' }]);
    for (const word of [VF, '02:10.0', 'pci_0000_02_10_0'])
      expect(run('bind', '-n', word).json.warnings).toBeUndefined();
  });

  test('log: of a device that is gone, its record; of one that nobody has ever seen, 4', () => {
    expect(run('log', GONE)).toMatchObject({ exit: 4, json: { error: { code: 'HOSTDEV_DEVICE_ABSENT' } } });
    expect(run('log', VF)).toMatchObject({ exit: 0, json: { records: [] } });
    expect(host.run('log', '02:10.0').out).toBe(`Nothing is on record of ${VF}\n`);
    const state = { driver: 'igb', override: null };
    const line = {
      ...{ schema: 1, time: '2026-11-26T10:00:00Z', device: GONE, verb: 'bind', outcome: 'done', owner: 'admin' },
      ...{ before: state, after: state, vfs: null, reason: null, guest: null, entry: null, recovered: false },
      ...{ uid: 0, loginuid: null, sudo_uid: null, lifted: [] },
    };
    host.file('var/log/hostdev/record.log', `${JSON.stringify(line)}\n`);
    expect(run('log', '99:00.0')).toMatchObject({ exit: 0, json: { records: [{ device: GONE }] } });
    expect(run('log', '98:00.0').exit).toBe(4);
    host.file('var/log/hostdev/record.log.1', 'of another version\n');
    expect(run('log', '98:00.0')).toMatchObject({ exit: 0, json: { records: [], warnings: [{ id: 'record' }] } });
  });
});
