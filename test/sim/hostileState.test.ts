/**
 * run/hostdev as an enemy or an accident may leave it: no command crashes, hangs, prints what moves a terminal or
 * writes elsewhere, and a device that no bad file names is bound and given back all the same.
 */
import { mkdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { expect, test } from 'vitest';
import { describeSim, type SimHost, useSimHosts } from './simhost.ts';
import { A, C, D, DOMAIN_XML, WORLD } from './world.ts';

const sims = useSimHosts();

const ESC = '\u001b[2J';
const HOLD = { owner: 'admin', name: null, managed: false, libvirt: null };
const STATE = { driver: 'e1000e', override: null };
const BOOK = {
  schema: 2,
  address: A,
  group: 30,
  boot: null,
  inode: null,
  holds: [HOLD],
  before: STATE,
  after: { driver: 'vfio-pci', override: 'vfio-pci' },
  since: 'now',
  prepared: {},
  note: null,
};
const MOVE = { address: A, group: 30, inode: null, from: STATE, to: BOOK.after, override_bytes: '(null)\n' };
const ENTRY = {
  schema: 2,
  id: 'x-1-1',
  kind: 'bind',
  owner: 'admin',
  boot: null,
  pid: 1,
  writer: null,
  started: 'now',
  mark: null,
  state: 'intent',
  devices: [MOVE],
  books: [],
  fresh: null,
  lifted: [],
  left: [],
};
const deep = (n: number): string => `${'['.repeat(n)}${']'.repeat(n)}`;

const TEXTS: [string, string][] = [
  ['empty', ''],
  ['no JSON', `{"x": ${ESC}`],
  ['binary', '\u0000\u0001\u00ff'.repeat(100)],
  ['null', 'null'],
  ['a number', '1e999'],
  ['very deep', deep(100_000)],
  ['a prototype', '{"__proto__": {"schema": 2, "holds": []}, "constructor": 1}'],
];

const BOOKS: [string, unknown][] = [
  ['an owner that is a list', { ...BOOK, holds: [{ ...HOLD, owner: ['admin'] }] }],
  ['holds that are none', { ...BOOK, holds: {} }],
  ['a driver with a slash', { ...BOOK, before: { driver: '../../../etc', override: null } }],
  ['a driver that moves a terminal', { ...BOOK, after: { driver: ESC, override: ESC } }],
  ['another device', { ...BOOK, address: D }],
  ['an address that is a path', { ...BOOK, address: '../../x' }],
  ['a group that is no number', { ...BOOK, group: '../0' }],
  ['a newer schema', { ...BOOK, schema: 99 }],
  [
    'a guest of a name that moves a terminal',
    { ...BOOK, holds: [{ ...HOLD, owner: 'domain:11111111-1111-4111-8111-111111111111', name: ESC }] },
  ],
];

const ENTRIES: [string, unknown][] = [
  ['devices that are none', { ...ENTRY, devices: [1, null, 'x'] }],
  ['an address that is a path', { ...ENTRY, devices: [{ ...MOVE, address: '../../x' }] }],
  ['a driver with a slash', { ...ENTRY, devices: [{ ...MOVE, to: { driver: '../x', override: '../x' } }] }],
  ['another id', { ...ENTRY, id: '../x' }],
  ['an unknown kind', { ...ENTRY, kind: ESC }],
  ['an unknown mark', { ...ENTRY, mark: 'maybe' }],
  ['a writer that is a list', { ...ENTRY, writer: [1] }],
  ['a writer that never was', { ...ENTRY, writer: '99999999999:1' }],
  ['what is left moves a terminal', { ...ENTRY, left: [ESC] }],
  ['a guard that is none', { ...ENTRY, lifted: [{ address: A, guard: ESC, reason: ESC }] }],
  ['a group that the kernel denies', { ...ENTRY, devices: [{ ...MOVE, group: 31 }] }],
];

const json = (cases: [string, unknown][]): [string, string][] => cases.map(([what, v]) => [what, JSON.stringify(v)]);

/** Every way to spoil a file of ours, besides its text. */
const SHAPES: [string, (file: string) => void][] = [
  ['a folder', (file) => mkdirSync(file)],
  ['a link to a device', (file) => symlinkSync('/dev/zero', file)],
  ['a link to itself', (file) => symlinkSync(file, file)],
  [
    '300 MB of nothing',
    (file) => {
      writeFileSync(file, '');
      truncateSync(file, 300_000_000);
    },
  ],
];

function tryAll(sim: SimHost, what: string): void {
  for (const words of [['status'], ['journal', 'list'], ['bind', '-n', A], ['status', '--fix']]) {
    const r = sim.run(...words);
    const said = `${what}: ${words.join(' ')}: ${r.exit} ${r.out}${r.err}`.slice(0, 2000);
    expect(r.exit, said).not.toBeNull();
    expect([70, 130], said).not.toContain(r.exit);
    expect(r.out + r.err, said).not.toContain('\u001b');
    expect(r.err, said).not.toMatch(/^\s+at /m);
  }
}

describeSim('a hostile run/hostdev', () => {
  test.each([
    ['bindings', `bindings/${A}.json`, [...TEXTS, ...json(BOOKS)]],
    ['journal', 'journal/x-1-1.json', [...TEXTS, ...json(ENTRIES)]],
    ['quarantine', `quarantine/${A}.json`, TEXTS],
  ] as const)('%s', async (_place, name, texts) => {
    const sim = await sims.start(WORLD);
    const file = sim.path(`run/hostdev/${name}`);
    sim.run('bind', C);
    sim.run('unbind', C);
    mkdirSync(dirname(file), { recursive: true });
    const ways: [string, () => void][] = [
      ...texts.map(([what, text]): [string, () => void] => [what, () => writeFileSync(file, text)]),
      ...SHAPES.map(([what, make]): [string, () => void] => [what, () => make(file)]),
    ];
    for (const [what, make] of ways) {
      make();
      tryAll(sim, what);
      const other = sim.run('bind', C);
      expect(other.exit, `${what}: ${other.err}`).toBe(0);
      expect(sim.run('unbind', C).exit, what).toBe(0);
      const hook = await sim.spawn(['hook', 'run', 'g', 'prepare', 'begin', '-'], DOMAIN_XML).ended;
      expect([0, 1, 3, 4, 5, 6, 9], `${what}: hook ${hook.exit} ${hook.err}`).toContain(hook.exit);
      await sim.spawn(['hook', 'run', 'g', 'release', 'end', '-'], DOMAIN_XML).ended;
      rmSync(file, { recursive: true, force: true });
      sim.run('unbind', A);
      sim.run('status', '--fix');
    }
    expect(sim.hung()).toEqual([]);
  });
});
