/** `config check` on a simulated host: each kind of mistake at its place, and what the specs take. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { checkConfig } from '../../../src/actions/configCheck.ts';
import { listPools } from '../../../src/actions/poolList.ts';
import { SCHEMA } from '../../../src/config/schema.ts';
import { type SimulatedHost, simulatedHost } from '../../mock/hosts.ts';
import { cpuMs } from '../../patience.ts';

const PF = '0000:21:00.0';
const VFS = ['0000:21:10.0', '0000:21:10.2', '0000:21:10.4', '0000:21:10.6'];

let sim: SimulatedHost;
beforeEach(() => {
  sim = simulatedHost();
});
afterEach(() => sim.remove());

function write(name: string, text: string | Uint8Array): string {
  const file = join(sim.host.root, name);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
  return file;
}

const nova = async (text: string) => checkConfig(sim.host, { config: [write('nova.conf', text)], inventory: null });
const own = async (text: string) => {
  write('etc/hostdev/hostdev.toml', text);
  return checkConfig(sim.host, { config: [], inventory: null });
};
const pci = async (...lines: string[]) => nova(`[pci]\n${lines.join('\n')}\n`);

describe('what the specs take', () => {
  test('a PF address takes the PF and its VFs, which is said', async () => {
    const c = await pci(`device_spec = {"address": "${PF}"}`);
    expect(c.mistakes).toEqual([]);
    expect(c.specs).toMatchObject([{ index: 0, line: 2, devices: [PF, ...VFS], hidden: [] }]);
    expect(c.remarks).toMatchObject([
      { line: 2, message: expect.stringContaining(PF), hint: expect.stringContaining('10ca') },
    ]);
  });

  test('with report_in_placement that is a mistake, but not for a physical network', async () => {
    const on = 'report_in_placement = true';
    expect((await pci(on, `device_spec = {"address": "${PF}"}`)).mistakes).toMatchObject([{ fatal: true, line: 3 }]);
    const network = await pci(on, `device_spec = {"address": "${PF}", "physical_network": "p"}`);
    expect(network.mistakes).toEqual([]);
  });

  test('PF and VFs by two specs: told at the later one, naming the earlier', async () => {
    const c = await pci(
      'report_in_placement = 1',
      'device_spec = {"product_id": "10ca"}',
      'device_spec = {"product_id": "10c9"}',
    );
    expect(c.mistakes).toMatchObject([
      { line: 4, key: 'device_spec[1]', message: expect.stringContaining('device_spec[0]') },
    ]);
  });

  test('nothing matches', async () => {
    const c = await pci('device_spec = {"vendor_id": "10de"}');
    expect(c.remarks).toMatchObject([{ line: 2, message: 'matches nothing here' }]);
    expect(c.mistakes).toEqual([]);
  });

  test('a spec behind a wider one never counts, and says which one goes first', async () => {
    const c = await pci('device_spec = {"vendor_id": "8086"}', 'device_spec = {"product_id": "10ca", "managed": "no"}');
    expect(c.specs[1]).toMatchObject({ devices: [], hidden: VFS });
    expect(c.remarks.find((r) => r.line === 3)?.message).toMatch(/never counts.*0000:21:10\.0.*device_spec\[0\]/);
  });

  test('a spec that is hidden for some devices only is no remark', async () => {
    const c = await pci(`device_spec = {"address": "${VFS[0]}"}`, 'device_spec = {"product_id": "10ca"}');
    expect(c.specs.map((s) => [s.devices.length, s.hidden.length])).toEqual([
      [1, 0],
      [3, 1],
    ]);
    expect(c.remarks).toEqual([]);
  });

  test('the first of two equal specs is kept, the second warned about', async () => {
    const c = await pci(
      'device_spec = {"product_id": "10ca"}',
      'device_spec = {"product_id": "0x10CA", "managed": "no"}',
    );
    expect(c.specs.map((s) => s.devices.length)).toEqual([4, 0]);
    expect(c.remarks.map((r) => [r.line, r.message.includes('never reached')])).toContainEqual([3, true]);
    expect(c.mistakes).toEqual([]);
  });

  test('bridges are said', async () => {
    const c = await pci('device_spec = {}');
    expect(c.remarks.some((r) => r.message.includes('0000:00:01.0') && r.message.includes('bridges'))).toBe(true);
  });

  test('what each alias finds', async () => {
    const alias = (name: string, more: string): string => `alias = {"name": "${name}", "vendor_id": "8086", ${more}}`;
    const lines = [
      `device_spec = {"address": "${PF}"}`,
      alias('vf', '"product_id": "10ca", "device_type": "type-VF"'),
      alias('pf', '"product_id": "10c9", "device_type": "type-PF"'),
      alias('none', '"product_id": "ffff"'),
    ];
    const c = await pci(...lines);
    expect(c.aliases.map((a) => [a.name, a.line, a.devices])).toEqual([
      ['vf', 3, 4],
      ['pf', 4, 1],
      ['none', 5, 0],
    ]);
    expect(c.remarks).toContainEqual(expect.objectContaining({ line: 5, message: '"none" finds no device here' }));
    // Placement is asked for, and cannot be told of a PF beside its VFs.
    const placement = await pci(...lines, '[filter_scheduler]', 'pci_in_placement = true');
    expect(placement.mistakes).toEqual([]);
    expect(placement.aliases.map((a) => a.devices)).toEqual([null, null, null]);
    expect(placement.remarks.some((r) => r.key === 'pci_in_placement')).toBe(true);
  });

  test('thousands of specs are told apart only as far as that is quick', async () => {
    const devices = Array.from({ length: 2000 }, (_, n) => ({
      address: `${(n >> 8).toString(16).padStart(4, '0')}:${(n & 255).toString(16).padStart(2, '0')}:00.0`,
      dev_type: 'type-PCI',
      vendor_id: '8086',
    }));
    const bytes = Buffer.from(JSON.stringify({ schema: 1, devices }));
    const file = write('n.conf', `[pci]\n${'device_spec = {"vendor_id": "8086"}\n'.repeat(2100)}`);
    const from = cpuMs();
    const c = await checkConfig(sim.host, { config: [file], inventory: { bytes, file: 'i', maxBytes: 1e6 } });
    expect(c.specs[0]?.devices).toHaveLength(2000);
    expect(c.remarks.some((r) => r.line === 3 && r.message.includes('takes nothing here'))).toBe(true);
    expect(cpuMs() - from).toBeLessThan(8000);
  });
});

describe('mistakes', () => {
  test.each([
    ['device_spec = {"manged": "no", "vendor_id": "8086"}', 16, 'device_spec[0].manged', 'managed'],
    ['device_spec = {"vendor_id": "8086", "product": "x", "trustd": "true"}', 53, 'device_spec[0].trustd', 'trusted'],
    ['device_spec = {"device_id": "8086", "product_id": "10ca"}', 16, 'device_spec[0].device_id', 'vendor_id'],
    ['device_spec = {"vendor_id": "8086", "device_id": "10ca"}', 37, 'device_spec[0].device_id', 'product_id'],
    ['device_spec = {"product_id": "zz"}', 30, 'device_spec[0].product_id', ''],
    ['device_spec = {"address": "0000:21:20.0"}', 27, 'device_spec[0].address', ''],
    ['device_spec = {"managed": "perhaps"}', 27, 'device_spec[0].managed', ''],
    ['device_spec = {"vendor_id": 8086}', 29, 'device_spec[0].vendor_id', '"8086"'],
    ['device_spec = "text"', 16, 'device_spec[0]', ''],
    ['device_spec = 5', 15, 'device_spec[0]', ''],
    ['device_spec =', 14, 'device_spec[0]', ''],
    ['device_spec = [{"vendor_id": "8086"}, 5]', 39, 'device_spec[1]', ''],
    ['alias = [{"name": "a"}]', 9, 'alias[0]', ''],
    ['alias = {"vendor_id": "8086", "product_id": "10ca"}', 9, 'alias[0]', ''],
    [
      'alias = {"name": "a", "vendor_id": "8086", "product_id": "10ca", "device_typ": "type-VF"}',
      66,
      'alias[0].device_typ',
      'device_type',
    ],
    [
      'alias = {"name": "a", "vendor_id": "8086", "product_id": "10ca", "device_type": "type-VFs"}',
      81,
      'alias[0].device_type',
      'type-VF',
    ],
    ['alias = {"name": "a", "vendor_id": "0x8086", "product_id": "10ca"}', 36, 'alias[0].vendor_id', ''],
    ['alias = {"name": "a", "resource_class": "X"}', 9, 'alias[0]', 'pci_in_placement'],
  ])('%s', async (line, column, key, hint) => {
    const [m, ...more] = (await pci(line)).mistakes;
    expect(m).toMatchObject({ line: 2, column, key, severity: 'error' });
    expect(m?.hint ?? '').toContain(hint);
    expect(more.filter((f) => f.key === key)).toEqual([]);
  });

  test('all of one spec, not only the first', async () => {
    const c = await pci(
      'device_spec = {"vendor_id": "zz", "product_id": 5,',
      '  "managed": "perhaps", "one_time_use": true, "manged": "x"}',
    );
    expect(c.mistakes.map((m) => [m.line, m.key])).toEqual([
      [2, 'device_spec[0].vendor_id'],
      [2, 'device_spec[0].product_id'],
      [3, 'device_spec[0].managed'],
      [3, 'device_spec[0].one_time_use'],
      [3, 'device_spec[0].manged'],
    ]);
  });

  test('a tag of the user own is a remark', async () => {
    const c = await pci('device_spec = {"product_id": "10ca", "switch_port": 7}');
    expect(c.mistakes).toEqual([]);
    expect(c.remarks).toMatchObject([{ key: 'device_spec[0].switch_port', column: 38 }]);
  });

  test.each([
    ['"trusted": true', 'trusted', 'boolean'],
    ['"resource_class": "CUSTOM_a-b"', 'resource_class', 'CUSTOM_A-B'],
    ['"traits": "blue, big"', 'traits', 'blanks'],
  ])('%s is taken by Nova and does not do what it looks like', async (tag, key, message) => {
    const c = await pci(`device_spec = {"product_id": "10ca", ${tag}}`);
    expect(c.mistakes).toEqual([]);
    expect(c.remarks).toMatchObject([{ key: `device_spec[0].${key}`, message: expect.stringContaining(message) }]);
    const fine = {
      trusted: '"trusted": "true"',
      resource_class: '"resource_class": "gold gpu"',
      traits: '"traits": "blue,big"',
    };
    expect((await pci(`device_spec = {"product_id": "10ca", ${fine[key as keyof typeof fine]}}`)).remarks).toEqual([]);
  });

  test('aliases of one name that do not agree are told at the second', async () => {
    const a = '"name": "a", "vendor_id": "8086", "product_id": "10ca", "device_type": "type-VF"';
    const c = await pci(`alias = {${a}}`, `alias = {${a}, "numa_policy": "required"}`, `alias = {${a}}`);
    expect(c.mistakes).toMatchObject([{ line: 3, key: 'alias[1].numa_policy' }]);
    expect(c.aliases.map((x) => x.line)).toEqual([2, 4]);
  });

  test.each([
    ['different classes', '"resource_class": "a"', '"resource_class": "b"', true],
    ['different traits', '"traits": "a"', '"managed": "yes"', true],
    ['different tags', '"managed": "no"', '"trusted": "true"', false],
  ])('VFs of one PF with %s, in Placement', async (_, one, two, isFatal) => {
    const lines = [`device_spec = {"address": "${VFS[0]}", ${one}}`, `device_spec = {"product_id": "10ca", ${two}}`];
    const on = ['report_in_placement = true', ...lines, '[filter_scheduler]', 'pci_in_placement = true'];
    expect((await pci(...on)).mistakes).toMatchObject([{ line: 4, key: 'device_spec[1]', fatal: isFatal }]);
    expect((await pci(...lines)).mistakes).toEqual([]);
    const network = lines.map((l) => l.replace('}', ', "physical_network": "p"}'));
    expect((await pci('report_in_placement = true', ...network)).mistakes).toEqual([]);
  });

  test('one_time_use on a VF', async () => {
    const c = await pci('report_in_placement = true', 'device_spec = {"product_id": "10ca", "one_time_use": true}');
    expect(c.mistakes).toMatchObject([{ line: 3, key: 'device_spec[0]', fatal: true }]);
  });

  test('devname with report_in_placement', async () => {
    const c = await pci('report_in_placement = true', 'device_spec = {"devname": "eth0"}');
    expect(c.mistakes).toMatchObject([{ line: 3, key: 'device_spec[0].devname', fatal: true }]);
  });
});

describe('whatever is in it', () => {
  const key = fc.constantFrom(
    ...Object.keys({ ...SCHEMA.device_spec.keys, ...SCHEMA.alias.keys }),
    'tag',
    '__proto__',
    'constructor',
    '',
    'a.b',
  );
  const value = fc.oneof(
    fc.constantFrom('8086', '10ca', '*', PF, '*:*:*.*', 'true', 'no', '', 'type-VF', 'a,b', 'CUSTOM_X', 'eth0'),
    fc.jsonValue({ maxDepth: 2 }),
    fc.record({ bus: fc.constantFrom('2.', '(', '.*', '0a'), slot: fc.string({ maxLength: 4 }) }),
  );
  const entry = fc.dictionary(key, value, { maxKeys: 6 });

  test('every mistake and remark has a place, and nothing crashes', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(entry, { maxLength: 3 }),
        fc.array(entry, { maxLength: 2 }),
        fc.boolean(),
        async (specs, aliases, placement) => {
          const text = (list: object[], name: string): string =>
            list.map((o) => `${name} = ${JSON.stringify(o).replaceAll('$', '$$$$')}\n`).join('');
          const c = await nova(
            `[filter_scheduler]\npci_in_placement = ${placement}\n[pci]\nreport_in_placement = ${placement}\n${text(specs, 'device_spec')}${text(aliases, 'alias')}`,
          );
          for (const f of [...c.mistakes, ...c.remarks])
            if (f.file !== '') expect([f.line > 0, f.column > 0, f.message !== '']).toEqual([true, true, true]);
          // What is no mistake can be used.
          const used = await listPools(sim.host, { config: c.files, inventory: null }, null).catch((e: unknown) => e);
          if (c.mistakes.some((m) => m.fatal)) expect(used).toMatchObject({ exit: 3 });
          else expect(used).toHaveProperty('pools');
        },
      ),
      { numRuns: 250 },
    );
  });
});

describe('hostdev.toml', () => {
  test('a good one', async () => {
    const c = await own(`
[[device_spec]]
product_id = "10ca"
managed = false
address = { bus = "2[0-9]" }
[[alias]]
name = "vf"
vendor_id = "8086"
product_id = "10ca"
device_type = "type-VF"
[hook]
unmanaged = "check"
prepare_seconds = 2.5
[pci]
trait_blanks = "nova"
[[allow]]
device = "${PF}"
guard = "network"
domain = "*"
`);
    expect(c.mistakes).toEqual([]);
    expect(c.remarks).toEqual([]);
    expect(c.specs).toMatchObject([{ line: 2, devices: VFS }]);
    expect(c.aliases).toMatchObject([{ name: 'vf', line: 6 }]);
  });

  test.each([
    ['vendor = 1', 1, 'vendor', 'is no section'],
    ['[device_spec]\nvendor_id = "8086"', 1, 'device_spec[0]', 'a list of tables is expected'],
    ['[[hook]]\nunmanaged = "bind"', 1, 'hook', 'a table is expected'],
    ['[[device_spec]]\nvendor_id = 0x8086', 2, 'device_spec[0].vendor_id', 'a text is expected'],
    ['[[device_spec]]\nvendor_id = 2026-01-01', 2, 'device_spec[0].vendor_id', 'is a date'],
    ['[[device_spec]]\naddress = ["a"]', 2, 'device_spec[0].address', 'is a list'],
    ['[[device_spec]]\nmanaged = "perhaps"', 2, 'device_spec[0].managed', 'managed'],
    ['[[alias]]\nname = ["x"]', 2, 'alias[0].name', 'is a list'],
    ['[hook]\nunmanaged = "Bind"', 2, 'hook.unmanaged', 'may be bind, check, ignore'],
    ['[hook]\nprepare_seconds = nan', 2, 'hook.prepare_seconds', 'may be 1 to 600'],
    ['[hook]\nprepare_seconds = "30"', 2, 'hook.prepare_seconds', 'a number is expected'],
    ['[hook]\nunmanagd = "bind"', 2, 'hook.unmanagd', 'is no key of hook'],
    ['[pci]\nhypervisor_hostname = ""', 1, 'pci.hypervisor_hostname', '0 characters'],
    ['[[allow]]\ndevice = "01:00.0"\nguard = "disk"\ndomain = "vm"', 2, 'allow[0].device', 'no full address'],
    [`[[allow]]\ndevice = "${PF}"\nguard = "denylist"\ndomain = "vm"`, 3, 'allow[0].guard', 'may be'],
    [`[[allow]]\ndevice = "${PF}"\nguard = "disk"`, 1, 'allow[0]', 'has no domain'],
    [`[[allow]]\ndevice = "${PF}"\nguard = "disk"\ndomain = " "`, 4, 'allow[0].domain', 'is empty'],
  ])('%j', async (text, line, key, message) => {
    const c = await own(`${text}\n`);
    expect(c.mistakes.find((m) => m.key === key)).toMatchObject({
      line,
      fatal: true,
      message: expect.stringContaining(message),
    });
  });

  test.each([
    ['[[device_spec]]\nvendor_id = 80q', 2],
    ['[hook\n', 2],
    ['a = 1\na = 2\n', 2],
    ['device_spec = { "vendor_id": "8086" }\n', 1],
    ['x = "\u0001"\n', 1],
    ['[[device_spec]]\n[device_spec]\n', 2],
  ])('broken TOML %j has a line and column', async (text, line) => {
    const c = await own(text);
    expect(c.mistakes).toMatchObject([
      { line, key: '', message: expect.stringMatching(/^is no TOML: /), hint: expect.stringMatching(/./) },
    ]);
    expect(c.mistakes[0]?.column).toBeGreaterThan(0);
  });

  test('conf.d comes after, in order: lists add up, the last setting counts and is said', async () => {
    write('etc/hostdev/conf.d/20.toml', '[[device_spec]]\nproduct_id = "10c9"\n[hook]\nunmanaged = "ignore"\n');
    write('etc/hostdev/conf.d/10.toml', '[[device_spec]]\nproduct_id = "100e"\n');
    write('etc/hostdev/conf.d/note.txt', 'no TOML at all');
    const c = await own('[[device_spec]]\nproduct_id = "10ca"\n[hook]\nunmanaged = "check"\n');
    expect(c.files.map((f) => f.slice(f.lastIndexOf('/') + 1))).toEqual(['hostdev.toml', '10.toml', '20.toml']);
    expect(c.specs.map((s) => s.devices.length)).toEqual([4, 1, 1]);
    expect(c.remarks.filter((r) => r.key === 'hook.unmanaged')).toMatchObject([
      { file: expect.stringMatching(/20\.toml$/), line: 4 },
    ]);
  });

  test('an allowance for a device that is not here is a remark', async () => {
    const c = await own('[[allow]]\ndevice = "0000:99:00.0"\nguard = "disk"\ndomain = "vm"\n');
    expect(c.mistakes).toEqual([]);
    expect(c.remarks).toMatchObject([{ key: 'allow[0].device', line: 1 }]);
  });

  test('no file at all is no mistake', async () => {
    const c = await checkConfig(sim.host, { config: [], inventory: null });
    expect(c).toMatchObject({ form: 'none', files: [], mistakes: [], remarks: [] });
  });
});

describe('the seeds, verbatim', () => {
  const FOLDER = 'test/data/seeds';
  const files = readdirSync(FOLDER).filter((n) => n.endsWith('.conf'));
  /** Those that are no JSON as their documents print them, and the line that is. */
  const CORRECTED: Record<string, string | null> = {
    '001-managed.conf':
      'device_spec = { "vendor_id": "10de", "product_id": "25b6", "address": "0000:25:00.4", "managed": "no" }',
    '001-resource-class.conf':
      'alias = { "device_type": "type-VF", "resource_class": "CUSTOM_A16_16A", "name": "A16_16A" }',
    // The grammar itself, no example.
    '003-grammar.conf': null,
  };

  test('are all here', () => {
    expect(files.length).toBe(13);
    for (const name of Object.keys(CORRECTED)) expect(files).toContain(name);
  });

  test.each(files)('%s', async (name) => {
    const file = join(FOLDER, name);
    const c = await checkConfig(sim.host, { config: [file], inventory: null });
    const corrected = CORRECTED[name];
    if (corrected === undefined) {
      expect(c.mistakes).toEqual([]);
      return;
    }
    expect(c.mistakes.length).toBeGreaterThan(0);
    if (corrected === null) return;
    expect(c.mistakes).toMatchObject([{ corrected }]);
    const [wrong] = c.mistakes;
    const lines = readFileSync(file, 'utf8').split('\n');
    lines[(wrong?.line ?? 0) - 1] = corrected;
    const again = await nova(`[filter_scheduler]\npci_in_placement = true\n${lines.join('\n')}\n`);
    expect(again.mistakes).toEqual([]);
  });

  test('the whitelist of 2013 takes what it meant', async () => {
    const c = await checkConfig(sim.host, { config: [join(FOLDER, '003-whitelist.conf')], inventory: null });
    expect(c.specs.map((s) => s.line)).toEqual([2, 5, 8, 11, 13]);
    expect(c.remarks.filter((r) => r.message.includes('old name'))).toHaveLength(1);
    // "*:0a:00.*" and ":0a:00." are the same.
    expect(c.remarks.filter((r) => r.message.includes('never reached'))).toMatchObject([{ key: 'device_spec[2]' }]);
  });
});
