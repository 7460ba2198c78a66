/**
 * Who may not make a change is told so by its dry run, with the exit code of the real one (contract 3): every command
 * that changes anything, as an ordinary user, on trees that are not his, in every state of our folders there, and on
 * the machine itself. What the caller typed wrong, or what is not there, counts before.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, statSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { COMMANDS } from '../../../src/cli/commands.ts';
import { isLacking } from '../../lacking.ts';
import { domainXml, UUID_A } from '../../mock/hosts.ts';
import { hostdev, type Ran, StaticHost } from '../../mock/tree.ts';

const NOBODY = { uid: 65534, gid: 65534 };
const PF = '0000:02:00.0';
const NIC = '0000:02:10.0';
const BRIDGE = '0000:00:01.0';

/**
 * A line of each command that changes something, the exit code as an ordinary user, and another one where he may not
 * read the journal.
 */
const LINES: [line: string, exit: number, closed?: number][] = [
  [`bind ${NIC}`, 6],
  [`bind ${BRIDGE}`, 6], // A guard would refuse it to anybody: that he may not at all counts before.
  [`bind ${NIC} --driver no_such_vfio_pci`, 6],
  ['bind 0000:77:00.0', 4],
  [`bind ${NIC} --allow nosuch`, 2],
  [`unbind ${NIC} --to-host`, 6],
  [`unbind ${NIC}`, 4, 6],
  [`vf create ${PF} --count 2`, 6],
  [`vf create ${NIC} --count 2`, 6],
  [`vf create ${PF} --count 99`, 6],
  ['vf create 0000:77:00.0 --count 2', 4],
  [`vf remove ${PF}`, 6],
  // No libvirt is to be asked below another root: that counts after who asks.
  [`attach g ${NIC}`, 6],
  [`detach g ${NIC}`, 6],
  ['status --fix', 6],
  ['journal undo', 6],
  ['journal resume', 6],
  ['journal undo x-1-1', 4, 6],
  [`bind ${NIC} --driver pci-stub`, 2, 6],
  [`bind ${NIC} --persist`, 6],
  [`wish add ${NIC}`, 6],
  [`wish remove ${NIC}`, 4],
  ['boot apply', 6],
  ['boot install', 6],
  ['boot refresh', 4],
  ['boot remove', 6],
  [`vf set ${PF} --vgpu-type 557`, 6],
  ['import nova.conf --write', 4],
  ['import driverctl --write', 6],
  ['hook install', 6],
  ['hook remove', 0],
  // Whom libvirt lets define is libvirt's to say, and below another root none is asked.
  ['domain define /dev/null', 8],
];

const TREE = {
  devices: [
    { address: BRIDGE, ids: '8086:1901', class: '060400', group: 1, driver: 'pcieport' },
    { address: PF, ids: '8086:10c9', group: 2, driver: 'igb', totalVfs: 7 },
    { address: NIC, ids: '8086:1521', group: 3, driver: 'igb' },
  ],
  drivers: { 'vfio-pci': 'vfio_pci' },
};

function tree(set: (host: StaticHost) => void): StaticHost {
  const host = new StaticHost(TREE);
  chmodSync(host.root, 0o755);
  set(host);
  return host;
}

const STATES: [what: string, set: (host: StaticHost) => void][] = [
  ['before our folders are there', () => {}],
  ['with /run alone', (h) => h.folder('run')],
  ['with an empty folder of ours', (h) => h.folder('run/hostdev')],
  [
    'with our folders as they are to be',
    (h) => {
      for (const f of ['bindings', 'journal', 'lock']) h.folder(`run/hostdev/${f}`);
      for (const f of ['journal', 'lock']) chmodSync(h.path(`run/hostdev/${f}`), 0o700);
    },
  ],
];

const isRoot = process.getuid?.() === 0;

describe.skipIf(isLacking(isRoot ? null : 'only root can become an ordinary user'))('as an ordinary user', () => {
  const verbs = new Set(LINES.map(([line]) => line));

  test('every command that changes anything is here', () => {
    const absent = COMMANDS.filter((c) => c.changes && ![...verbs].some((line) => line.startsWith(`${c.name}`)));
    expect(absent.map((c) => c.name)).toEqual([]);
  });

  describe.each(STATES)('%s', (_what, set) => {
    let host: StaticHost;
    beforeAll(() => {
      host = tree(set);
    });
    afterAll(() => host.remove());

    test.each(LINES)('%s: %i', (line, open, closed = open) => {
      const isClosed = existsSync(host.path('run/hostdev/journal'));
      const exit = isClosed ? closed : open;
      const before = host.hash();
      const run = (...more: string[]): Ran => hostdev(['--root', host.root, ...line.split(' '), ...more, '-j'], NOBODY);
      const [dry, real] = [run('-n'), run()];
      expect([dry.exit, real.exit], `${dry.err}\n${real.err}`).toEqual([exit, exit]);
      expect(host.hash()).toBe(before);
    });
  });

  const NO = domainXml('g', UUID_A, [{ address: NIC }]).toString();
  const EMPTY = domainXml('g', UUID_A, []).toString();

  test.each(STATES)(
    'what the hook would do is told for him too, and what only root may see is a warning: %s',
    (_what, set) => {
      const host = tree(set);
      const ask = (words: string, input: string): Ran =>
        hostdev(['--root', host.root, ...words.split(' '), '-j'], { ...NOBODY, input });
      const doors = [
        ask('hook test -', NO),
        ask('domain check -', NO),
        ask(`domain plan - ${NIC} --managed no`, EMPTY),
      ];
      const isClosed = existsSync(host.path('run/hostdev/journal'));
      host.remove();
      for (const door of doors) {
        expect(door.exit, door.err).toBe(0);
        expect(door.err.includes('without root an unfinished change is not known')).toBe(isClosed);
      }
    },
  );

  test('the plan is shown all the same', () => {
    const host = tree(() => {});
    const ran = hostdev(['--root', host.root, 'bind', '-n', NIC, '-j'], NOBODY);
    const text = hostdev(['--root', host.root, 'hook', 'install', '-n'], NOBODY).out;
    host.remove();
    expect(ran.json.plan.devices).toMatchObject([{ address: NIC, driver_to: 'vfio-pci' }]);
    expect(ran.json.warnings.map((w) => w.text).join()).toContain('the real run would refuse: Failed to write to');
    expect(text).toContain('Would install');
  });

  test.each([
    [NIC, `bind ${NIC}`],
    [NIC, `unbind --to-host ${NIC}`],
    [PF, `vf create ${PF} --count 2`],
  ])("a file of the kernel's that he cannot write, in a tree of his own: %s, %s", (address, line) => {
    const left = line.startsWith('unbind') ? 'vfio-pci\n' : '(null)\n';
    const host = tree((h) => h.file(`sys/devices/pci0000:02/${NIC}/driver_override`, left));
    execFileSync('chown', ['-R', `${NOBODY.uid}`, host.root]);
    for (const name of host.names(`sys/bus/pci/devices/${address}`))
      if (statSync(host.path(`sys/bus/pci/devices/${address}/${name}`)).isFile())
        execFileSync('chown', ['0', host.path(`sys/bus/pci/devices/${address}/${name}`)]);
    const run = (...more: string[]): Ran => hostdev(['--root', host.root, ...line.split(' '), ...more, '-j'], NOBODY);
    const [dry, real] = [run('-n'), run()];
    host.remove();
    expect([dry.exit, real.exit], `${dry.err}\n${real.err}`).toEqual([6, 6]);
    expect(dry.json.plan.steps.length).toBeGreaterThan(0);
  });

  test('in a tree of his own the hook is installed, again is no change, and removed', () => {
    const host = tree((h) => execFileSync('chown', ['-R', `${NOBODY.uid}`, h.root]));
    const run = (...more: string[]): Ran => hostdev(['--root', host.root, 'hook', ...more, '-j'], NOBODY);
    expect(run('install', '-n')).toMatchObject({ exit: 0, json: { changed: false, would: true } });
    expect(run('install')).toMatchObject({ exit: 0, json: { changed: true, would: false } });
    execFileSync('chown', ['-R', '0', host.root]);
    // Done already, whoever asks; taking it away is not his any more.
    for (const dry of [['-n'], []]) {
      expect(run('install', ...dry)).toMatchObject({ exit: 0, json: { changed: false, would: false } });
      expect(run('remove', ...dry).exit).toBe(6);
    }
    host.remove();
  });

  test.each(LINES.filter(([line]) => line.startsWith('hook') || /^(status|journal)/.test(line)))(
    'on the machine itself: %s',
    (line) => {
      const run = (...more: string[]): Ran => hostdev([...line.split(' '), ...more, '-j'], NOBODY);
      const [dry, real] = [run('-n'), run()];
      expect(dry.exit).toBe(real.exit);
    },
  );
});
