/** Lower floors never import upper ones (docs/architecture.md): the house stays a house. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { expect, test } from 'vitest';

/** The rooms of a domain, and what stands in none: its facts, below the rooms, and the check, above them. */
const DOMAIN = ['domain/xml', 'domain', 'domain/device', 'domain/rules', 'domain/viommu'];

/** Lowest first; a folder imports only from folders in its list. */
const MAY_IMPORT: Record<string, string[]> = {
  text: [],
  addon: [],
  host: ['addon'],
  store: ['addon', 'host'],
  // Names that --allow and hostdev.toml share.
  'config/allowable.ts': [],
  // Values and their places: what they mean is told by the floors above.
  config: ['addon', 'host', 'store', 'config/allowable.ts'],
  pci: ['addon', 'host', 'store'],
  // Nova's grammar is text in, values out; the names of the keys are the schema's.
  'nova/grammar': ['config'],
  pool: ['nova/grammar', 'pci'],
  placement: ['nova/grammar', 'pool'],
  binding: ['addon', 'host', 'store', 'pci', 'config/allowable.ts'],
  network: ['addon', 'host', 'pci', 'binding'],
  // Addresses only: a domain knows no sysfs.
  'domain/xml': ['pci'],
  'domain/device': ['pci', 'domain/xml', 'domain'],
  'domain/rules': ['domain/xml', 'domain', 'domain/device'],
  'domain/viommu': ['domain/xml', 'domain', 'domain/rules'],
  domain: ['pci', ...DOMAIN],
  // What libvirt's own programs and files say.
  libvirt: ['addon', 'host', 'pci', ...DOMAIN],
  hook: ['addon', 'host', 'store', 'config', 'pci', 'binding', ...DOMAIN],
  // Nova's configuration on this host: what its values mean, what they take, what is free.
  nova: ['host', 'store', 'config', 'pci', 'binding', 'nova/grammar', 'pool', 'placement'],
  // Wishes, what of them this host fulfils, and who else has a hand in it: asks, writes its own files, moves nothing.
  boot: ['addon', 'host', 'store', 'config', 'config/allowable.ts', 'pci', 'binding'],
  // No host at all.
  simulate: ['config', 'pci', 'nova/grammar', 'pool', 'placement'],
  // Judges facts, changes nothing.
  doctor: ['addon', 'host', 'store', 'pci', 'binding'],
  actions: [
    'addon',
    'host',
    'store',
    'config',
    'config/allowable.ts',
    'pci',
    'nova/grammar',
    'pool',
    'placement',
    'binding',
    'network',
    'nova',
    'simulate',
    ...DOMAIN,
    'libvirt',
    'hook',
    'boot',
    'doctor',
  ],
  cli: [
    'addon',
    'host',
    'config',
    'actions',
    'binding',
    'nova/grammar',
    'nova',
    'simulate',
    ...DOMAIN,
    'libvirt',
    'boot',
    'hook',
    'doctor',
  ],
  start: ['cli'],
};

/** The floor that a file is on: its folder in src, or a room of it that has a floor of its own. */
const floorOf = (file: string): string => {
  const [, folder = '', room = ''] = file.split('/');
  return `${folder}/${room}` in MAY_IMPORT ? `${folder}/${room}` : folder;
};

/** What every floor may use, and imports nothing itself. */
const EVERYBODYS = ['errors.ts', 'clock.ts', 'text'];

const sources = readdirSync('src', { recursive: true, encoding: 'utf8' })
  .map((n) => join('src', n))
  .filter((f) => f.endsWith('.ts') && statSync(f).isFile());

test('imports go down only', () => {
  const wrong: string[] = [];
  for (const file of sources) {
    const floor = floorOf(file);
    for (const [, target = ''] of readFileSync(file, 'utf8').matchAll(/from '(\.[^']+)'|import\('(\.[^']+)'\)/g)) {
      const other = floorOf(normalize(join(dirname(file), target)));
      if (other === floor || !target || EVERYBODYS.includes(other)) continue;
      if (!MAY_IMPORT[floor]?.includes(other)) wrong.push(`${file} imports ${target}`);
    }
  }
  expect(sources.length).toBeGreaterThan(30);
  expect(wrong).toEqual([]);
});

test('only host/ and addon/ that scans for it spell paths of the kernel', () => {
  const spelled = sources.filter(
    (f) =>
      !/^src\/(host|addon)\//.test(f) &&
      /^[^*]*['`](?:sys|proc|lib\/modules|run\/hostdev)\//m.test(readFileSync(f, 'utf8')),
  );
  expect(spelled).toEqual([]);
});

test('the hook has no connection to libvirt, which waits for it with the domain locked', () => {
  const hook = sources.filter((f) => /^src\/hook\//.test(f) || /^src\/cli\/hookRun\.ts$/.test(f));
  const asks = hook.filter((f) =>
    /libvirt\/(connection|domains)|actions\/(guests|whoHas)|openLibvirt/.test(readFileSync(f, 'utf8')),
  );
  expect(hook.length).toBeGreaterThan(8);
  expect(asks).toEqual([]);
});

test('no circles, inside a folder neither', () => {
  const imports = new Map(
    sources.map((f) => [
      f,
      [...readFileSync(f, 'utf8').matchAll(/from '(\.[^']+)'|import\('(\.[^']+)'\)/g)].map(([, s, d]) =>
        normalize(join(dirname(f), s ?? d ?? '')),
      ),
    ]),
  );
  // Whoever imports nothing that is left, or is imported by nothing that is left, is in no circle.
  for (let before = -1; before !== imports.size; ) {
    before = imports.size;
    const used = new Set([...imports.values()].flat());
    for (const [file, targets] of [...imports])
      if (!used.has(file) || !targets.some((t) => imports.has(t))) imports.delete(file);
  }
  expect([...imports.keys()]).toEqual([]);
});
