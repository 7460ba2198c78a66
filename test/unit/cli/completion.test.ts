/**
 * What the shells offer: every command and option of the table, and what is on the host now; and the three scripts,
 * each by its own shell.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadNative } from '../../../src/addon/load.ts';
import { COMMANDS, GLOBALS } from '../../../src/cli/commands.ts';
import { complete, SHELLS } from '../../../src/cli/completion.ts';
import { Host } from '../../../src/host/host.ts';
import { has, isLacking } from '../../lacking.ts';
import { CLI, StaticHost } from '../../mock/tree.ts';

const GRAMMAR = { commands: COMMANDS, globals: GLOBALS };
const PF = '0000:02:00.0';
const VF = '0000:02:10.0';

let host: StaticHost;
let bin: string;
beforeAll(() => {
  host = new StaticHost({
    devices: [
      { address: PF, ids: '8086:10c9', group: 2, driver: 'igb', totalVfs: 7 },
      { address: VF, ids: '8086:10ca', group: 3, driver: 'igbvf', physfn: PF },
    ],
    files: {
      'etc/hostdev/hostdev.toml': '[[alias]]\nname = "nic"\nproduct_id = "10ca"\nvendor_id = "8086"\n',
      'etc/libvirt/qemu/web1.xml': '<domain/>',
      'etc/libvirt/qemu/bad\nname.xml': '<domain/>',
    },
  });
  bin = mkdtempSync(join(tmpdir(), 'hostdev-bin-'));
  symlinkSync(CLI, join(bin, 'hostdev'));
});
afterAll(() => {
  host.remove();
  rmSync(bin, { recursive: true });
});

const answer = (...line: string[]) => complete(GRAMMAR, line, new Host(host.root, loadNative()));
const offered = async (...line: string[]): Promise<string[]> =>
  (await answer(...line)).candidates.map((c) => c.word).sort();

test('every command is reached word by word, and each of its options is offered', async () => {
  for (const { name, own } of COMMANDS) {
    const words = name.split(' ');
    for (let i = 0; i < words.length; i += 1)
      expect([name, await offered(...words.slice(0, i), words[i]?.slice(0, 1) ?? '')]).toEqual([
        name,
        expect.arrayContaining([words[i]]),
      ]);
    const options = await offered(...words, '--');
    expect([name, options]).toEqual([name, expect.arrayContaining(Object.keys(own ?? {}).map((o) => `--${o}`))]);
    expect(options).toContain('--json');
  }
});

test.each([
  [
    ['bind', ''],
    [PF, VF],
  ],
  [['bind', '0000:02:1'], [VF]],
  [['bind', PF, ''], [VF]],
  [
    ['-j', 'bind', '--driver', 'auto', ''],
    [PF, VF],
  ],
  [['vf', 'create', ''], [PF]],
  [
    ['vf', 'create', '--for', ''],
    ['netdev', 'vfio'],
  ],
  [['vf', 'create', '--for=v'], ['--for=vfio']],
  [['vf', 'create', PF, ''], []],
  [
    ['group', 'show', ''],
    [PF, VF, '2', '3'],
  ],
  [['claim', 'n'], ['nic:1']],
  [['domain', 'plan', 'x.xml', '--alias', ''], ['nic:1']],
  [
    ['domain', 'plan', 'x.xml', '--device', ''],
    [PF, VF],
  ],
  [['hook', 'run', 'w'], ['web1']],
  [
    ['bind', '--allow', 'dis'],
    ['disk', 'display'],
  ],
  [['list', ''], []],
  [['list', '--al'], []],
  [['nonesuch', ''], []],
  [['--root', ''], []],
  [
    ['completion', ''],
    ['bash', 'fish', 'words', 'zsh'],
  ],
  [
    [],
    [
      'attach',
      'bind',
      'boot',
      'claim',
      'completion',
      'config',
      'detach',
      'doctor',
      'domain',
      'group',
      'guest',
      'hook',
      'import',
      'journal',
      'list',
      'log',
      'placement',
      'pool',
      'show',
      'simulate',
      'status',
      'unbind',
      'vf',
      'viommu',
      'wish',
    ],
  ],
])('%j', async (line, words) => expect(await offered(...line)).toEqual(words));

test("files are the shell's to add; the domains that libvirt keeps go with them", async () => {
  expect(await answer('domain', 'check', '')).toMatchObject({
    paths: 'files',
    candidates: expect.arrayContaining([{ word: host.path('etc/libvirt/qemu/web1.xml'), text: 'domain web1' }]),
  });
  expect((await answer('--root', '')).paths).toBe('folders');
  expect((await answer('bind', '')).paths).toBeNull();
});

test('--root among the words is the host that is asked; nothing that cannot be read fails', async () => {
  const other = new Host('/nonexistent', loadNative());
  expect((await complete(GRAMMAR, ['--root', host.root, 'bind', ''], other)).candidates).toHaveLength(2);
  expect((await complete(GRAMMAR, ['--root', '/nonexistent/x', 'bind', ''], other)).candidates).toEqual([]);
  expect((await complete(GRAMMAR, ['--config', '/nonexistent', 'claim', ''], other)).candidates).toEqual([]);
});

test('names that would break a line are left out of what a shell reads', () => {
  const { out, exit } = host.run('completion', 'words', '--', 'domain', 'check', '');
  expect(exit).toBe(0);
  expect(out).toContain('web1.xml\tdomain web1\n');
  expect(out).toMatch(/^(?:[^\t\n]+\t[^\t\n]*\n)+:files\n$/);
});

test('a shell that there is none for', () => {
  expect(host.run('completion', 'tcsh').exit).toBe(2);
  for (const shell of SHELLS) expect(host.run('completion', shell).out).toContain('completion words --');
});

describe('by the shell itself', () => {
  const script = (name: string) => join(import.meta.dirname, `../../../src/cli/completion.${name}`);
  const shell = (program: string, ...args: string[]): string[] =>
    execFileSync(program, args, {
      encoding: 'utf8',
      env: { ...process.env, PATH: `${bin}:${process.env.PATH}` },
    })
      .split('\n')
      .filter(Boolean)
      .sort();

  test.each([
    [`hostdev --root ROOT bind 0000:02:1`, ['10.0']],
    [`hostdev --root ROOT bind `, [PF, VF]],
    [`hostdev --root ROOT vf create --for=`, ['netdev', 'vfio']],
    [`hostdev grou`, ['group']],
  ])('bash: %s', (line, words) => {
    const typed = line.replace('ROOT', host.root);
    const source = `COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'; source ${script('bash')}; COMP_LINE='${typed}'; COMP_POINT=${typed.length}; _hostdev; printf '%s\\n' "\${COMPREPLY[@]}"`;
    expect(shell('bash', '-c', source)).toEqual(words);
  });

  test.skipIf(isLacking(has('zsh') ? null : 'zsh is not here: apt-get install zsh'))('zsh', () => {
    const source = `compdef() { :; }; compadd() { local i=\${@[(i)--]}; print -l -- \${@[i+1,-1]}; }; source ${script('zsh')}; words=(hostdev --root ${host.root} bind 0000:02:1); CURRENT=5; _hostdev`;
    expect(shell('zsh', '-f', '-c', source)).toEqual([VF]);
  });

  test.skipIf(isLacking(has('fish') ? null : 'fish is not here: apt-get install fish'))('fish', () => {
    const asked = `source ${script('fish')}; complete -C 'hostdev --root ${host.root} bind 0000:02:1'`;
    expect(shell('fish', '--no-config', '-c', asked)).toEqual([`${VF}\tigbvf: 8086:10ca`]);
  });
});
