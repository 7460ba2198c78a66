/**
 * Configuration and inventory files that are not as they should be: a clear error with place and hint, never a crash.
 * And what the hook reads of them.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { liftedFor } from '../../../src/binding/guards/allowances.ts';
import { readHookConfig } from '../../../src/config/hookSettings.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { HostdevError } from '../../../src/errors.ts';
import { vpdSerial } from '../../../src/pci/facts.ts';
import { readSavedInventory } from '../../../src/pci/savedInventory.ts';
import { nearestWord } from '../../../src/text/nearestWord.ts';
import { type SimulatedHost, simulatedHost } from '../../mock/hosts.ts';
import { CLI, hostdev, runCommand } from '../../mock/tree.ts';
import { cpuMs, EVER } from '../../patience.ts';

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

const load = (...config: string[]) => loadConfig(sim.host, config);
const code = async (p: Promise<unknown>): Promise<string> =>
  p.then(
    () => 'none',
    (e: unknown) => (e instanceof HostdevError ? e.code : String(e)),
  );

describe('which files', () => {
  test('a folder of Nova is its *.conf, sorted; hidden files and others are not read', async () => {
    for (const [n, spec] of [
      ['b', 2],
      ['a', 1],
      ['.h', 3],
    ])
      write(`d/${n}.conf`, `[pci]\ndevice_spec = {"x": ${spec}}\n`);
    write('d/a.conf.orig', 'no');
    const c = await load(join(sim.host.root, 'd'));
    expect(c.form).toBe('nova');
    expect(c.files).toEqual(['a', 'b'].map((n) => join(sim.host.root, `d/${n}.conf`)));
    expect(c.specs.map((s) => s.place.file)).toEqual(c.files);
  });

  test('nova.conf and a folder of more add up in order', async () => {
    const main = write('nova.conf', '[pci]\ndevice_spec = {"x": 1}\nreport_in_placement = false\n');
    write('nova.conf.d/x.conf', '[pci]\ndevice_spec = {"x": 2}\nreport_in_placement = true\n');
    const alone = await load(main);
    expect(alone.findings).toMatchObject([{ severity: 'warning' }, { severity: 'warning' }]);
    expect(alone.findings.some((f) => f.hint?.includes('nova.conf.d'))).toBe(true);
    const both = await load(main, join(sim.host.root, 'nova.conf.d'));
    expect(both.specs).toHaveLength(2);
    expect(both.pci.report_in_placement).toBe(true);
  });

  test('a folder of ours is hostdev.toml with conf.d', async () => {
    write('o/hostdev.toml', '[[device_spec]]\n');
    write('o/conf.d/1.toml', '[[device_spec]]\n');
    const c = await load(join(sim.host.root, 'o'));
    expect([c.form, c.specs.length]).toEqual(['hostdev', 2]);
  });

  test("of both kinds Nova's go first, and ours add what nova.conf has no place for", async () => {
    const conf = write('nova.conf', '[pci]\ndevice_spec = {"x": 1}\nreport_in_placement = true\n');
    const toml = write('x.toml', '[[device_spec]]\n[pci]\ntrait_blanks = "nova"\nstarlingx_default_aliases = true\n');
    const c = await load(toml, conf);
    expect([c.form, c.files, c.specs.map((s) => s.place.file)]).toEqual(['both', [conf, toml], [conf, toml]]);
    expect(c.pci).toMatchObject({ report_in_placement: true, trait_blanks: 'nova', starlingx_default_aliases: true });
  });

  test('an empty folder and a file that is not there are refused', async () => {
    const conf = write('nova.conf', '');
    mkdirSync(join(sim.host.root, 'empty'));
    expect(await code(load(join(sim.host.root, 'empty')))).toBe('HOSTDEV_FILE_ABSENT');
    expect(await code(load(join(sim.host.root, 'gone.conf')))).toBe('HOSTDEV_FILE_ABSENT');
    expect(await code(load(`${conf}/x`))).toBe('HOSTDEV_FILE_ABSENT');
  });

  test('a folder in the place of a file, and a link to nowhere', async () => {
    mkdirSync(join(sim.host.root, 'etc/hostdev/hostdev.toml'), { recursive: true });
    expect(await code(load())).toBe('HOSTDEV_FILE_ABSENT');
    mkdirSync(join(sim.host.root, 'd'));
    symlinkSync('nowhere', join(sim.host.root, 'd/a.conf'));
    expect(await code(load(join(sim.host.root, 'd')))).toBe('HOSTDEV_FILE_ABSENT');
  });
});

describe('what is in them', () => {
  test.each([
    ['nova.conf', Buffer.concat([Buffer.from('[pci]\nä = "ö'), Buffer.from([0xff, 0x0a])]), 2, 7, '0xff'],
    ['x.toml', Buffer.concat([Buffer.from('# ok\n\n'), Buffer.from([0xc3, 0x28])]), 3, 2, '0x28'],
    ['cut.toml', Buffer.from([0x23, 0xe2, 0x82]), 1, 2, '0xe2'],
    ['utf16.conf', Buffer.from('\ufeff[pci]\n', 'utf16le'), 1, 1, '0xff'],
  ])('%s that is not UTF-8 has the place of the byte', async (name, bytes, line, column, byte) => {
    const c = await load(write(name, bytes));
    expect(c.findings).toMatchObject([{ line, fatal: true, message: expect.stringContaining('is not UTF-8') }]);
    if (name !== 'cut.toml') expect(c.findings).toMatchObject([{ column, message: expect.stringContaining(byte) }]);
  });

  test.each(['big.conf', 'big.toml'])('10 MB in %s are not parsed', async (name) => {
    const file = write(name, '# x\n'.repeat(2_500_000));
    const from = cpuMs();
    const c = await load(file);
    expect(c.findings).toMatchObject([{ fatal: true, message: expect.stringMatching(/^is larger than \d MiB$/) }]);
    expect(cpuMs() - from).toBeLessThan(2000);
  });

  test('a named pipe that nobody writes to is empty, and keeps nobody waiting', async () => {
    const pipe = join(sim.host.root, 'p.conf');
    execFileSync('mkfifo', [pipe]);
    const from = performance.now();
    expect((await load(pipe)).findings).toEqual([]);
    expect(performance.now() - from).toBeLessThan(EVER);
  });

  test('an endless file ends', async () => {
    const c = await load('/dev/zero');
    expect(c.findings).toMatchObject([{ message: expect.stringContaining('larger than') }]);
  });

  test('noise never raises', async () => {
    const noise = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 200 }),
      fc
        .array(
          fc.constantFrom(
            '[pci]\n',
            'device_spec = ',
            'alias = ',
            '{',
            '}',
            '"',
            "'",
            '[',
            ']',
            '\n',
            ' ',
            '$',
            `\${a}`,
            '"a": 1',
            '=',
            '[[alias]]\n',
            '\\',
            'é',
            '\u0000',
          ),
          { maxLength: 40 },
        )
        .map((a) => a.join('')),
    );
    await fc.assert(
      fc.asyncProperty(noise, fc.constantFrom('n.conf', 'n.toml'), async (text, name) => {
        const c = await load(write(name, text));
        for (const f of c.findings) expect(f.line).toBeGreaterThan(0);
      }),
      { numRuns: 600 },
    );
  });

  test('a byte order mark is nothing to TOML, and a mistake to oslo', async () => {
    expect((await load(write('b.toml', '\ufeff[hook]\nunmanaged = "check"\n'))).hook.unmanaged).toBe('check');
    expect((await load(write('b.conf', '\ufeff[pci]\n'))).findings).toMatchObject([{ line: 1, fatal: true }]);
  });
});

describe('what the hook reads', () => {
  const PF = '0000:21:00.0';
  const allow = (domain: string, guard = 'disk'): string =>
    `[[allow]]\ndevice = "${PF}"\nguard = "${guard}"\ndomain = "${domain}"\n`;

  test('without files: the defaults', async () => {
    expect(await readHookConfig(sim.host)).toEqual({
      hook: { unmanaged: 'bind', prepare_seconds: 30, start_seconds: 5, other_seconds: 2 },
      allow: [],
    });
  });

  test('its section and the allowances, whatever is wrong elsewhere', async () => {
    write(
      'etc/hostdev/hostdev.toml',
      `[hook]\nstart_seconds = 8\n[[device_spec]]\nvendor_id = 5\n[[alias]]\nx = 1\n[pci]\ny = 2\n${allow('vm1')}${allow('*', 'network')}`,
    );
    const c = await readHookConfig(sim.host);
    expect(c.hook).toEqual({ unmanaged: 'bind', prepare_seconds: 30, start_seconds: 8, other_seconds: 2 });
    expect([...liftedFor(c.allow, PF, { name: 'vm1', owner: 'domain:u' })].sort()).toEqual(['disk', 'network']);
    expect([...liftedFor(c.allow, PF, { name: 'vm2', owner: 'domain:u' })]).toEqual(['network']);
    expect([...liftedFor(c.allow, '0000:22:00.0', { name: 'vm1', owner: 'domain:u' })]).toEqual([]);
  });

  test('a UUID in any case', async () => {
    write('etc/hostdev/hostdev.toml', allow('624392BD-9784-4E20-8B29-1E85F123C67D'));
    const c = await readHookConfig(sim.host);
    expect([...liftedFor(c.allow, PF, { name: 'x', owner: 'domain:624392bd-9784-4e20-8b29-1e85f123c67d' })]).toEqual([
      'disk',
    ]);
  });

  test.each(['[hook]\nunmanaged = "x"\n', '[hook]\nx = 1\n', '[[allow]]\n', 'x = \n', '[hok]\n'])(
    '%j is refused',
    async (text) => {
      write('etc/hostdev/hostdev.toml', text);
      expect(await code(readHookConfig(sim.host))).toBe('HOSTDEV_CONFIG');
    },
  );
});

describe('a saved inventory', () => {
  const DEVICE = {
    address: '0000:21:00.0',
    dev_type: 'type-PF',
    vendor_id: '8086',
    product_id: '10c9',
    sriov_totalvfs: 7,
  };
  const read = (document: unknown) =>
    readSavedInventory(
      Buffer.from(typeof document === 'string' ? document : JSON.stringify(document)),
      'inv.json',
      1024 * 1024,
    );
  const devices = (...list: unknown[]): unknown => ({ schema: 1, devices: list });

  test('is what list -j prints', () => {
    const printed = hostdev(['list', '-j']).out;
    const inventory = readSavedInventory(Buffer.from(printed), 'x', 16 * 1024 * 1024);
    const { devices: listed } = JSON.parse(printed) as { devices: { wish: unknown; guest: unknown }[] };
    // What this host wishes of a device, and who has it now, are no facts of the device.
    expect(inventory.devices).toEqual(listed.map(({ wish: _, guest: __, ...facts }) => facts));
  });

  test('keys of newer versions are read over, those left out are not known, the order is that of addresses', () => {
    const i = read(devices({ ...DEVICE, future: {} }, { address: '0000:03:00.0', dev_type: 'type-PCI' }));
    expect(i.devices.map((d) => [d.address, d.vendor_id, d.numa_node, d.stuck])).toEqual([
      ['0000:03:00.0', null, null, false],
      ['0000:21:00.0', '8086', null, false],
    ]);
    expect(i.byAddress.get('0000:21:00.0')?.sriov_totalvfs).toBe(7);
  });

  test.each([
    ['', 'is no JSON'],
    ['{"schema":1,"devices":[', 'is no JSON'],
    ['[]', 'is no JSON object'],
    ['null', 'is no JSON object'],
    ['{}', 'schema is nothing'],
    ['{"schema":2,"devices":[]}', 'schema is 2'],
    ['{"schema":1}', 'no list "devices"'],
    ['{"schema":1,"error":{"code":"X"}}', 'holds the error'],
    [devices(5), 'devices[0] is 5'],
    [devices({}), 'devices[0].address is missing'],
    [devices({ ...DEVICE, address: '21:00.0' }), 'devices[0].address is "21:00.0"'],
    [devices({ ...DEVICE, address: '../../x' }), 'devices[0].address is'],
    [devices({ ...DEVICE, dev_type: 'PF' }), 'devices[0].dev_type is "PF"'],
    [devices({ ...DEVICE, vendor_id: '0x8086' }), 'devices[0].vendor_id'],
    [devices({ ...DEVICE, vendor_id: 8086 }), 'devices[0].vendor_id'],
    [devices({ ...DEVICE, class: '0200' }), 'devices[0].class'],
    [devices({ ...DEVICE, numa_node: -1 }), 'devices[0].numa_node'],
    [devices({ ...DEVICE, iommu_group: 1.5 }), 'devices[0].iommu_group'],
    [devices({ ...DEVICE, driver: '../x' }), 'devices[0].driver'],
    [devices({ ...DEVICE, parent_addr: '' }), 'devices[0].parent_addr'],
    [devices({ ...DEVICE, stuck: 1 }), 'devices[0].stuck'],
    [devices(DEVICE, DEVICE), 'devices[1].address: 0000:21:00.0 is there twice'],
    [devices(...Array(65_537).fill(0)), '65537 devices'],
    ['"'.repeat(1024 * 1024 + 1), 'larger than 1 MiB'],
  ])('%.40j is refused', (document, message) => {
    let error: unknown;
    try {
      read(document);
    } catch (e) {
      error = e;
    }
    expect(error).toMatchObject({ code: 'HOSTDEV_INVENTORY', message: expect.stringContaining(message) });
    expect((error as Error).message).toMatch(/^inv\.json: /);
  });
});

describe('on the command line', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'hostdev-config-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));
  const file = (name: string, text: string | Uint8Array): string => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };

  test('config check exits 3 with mistakes, 0 with remarks only, and -j is one document', () => {
    const bad = hostdev([
      'config',
      'check',
      '-j',
      '--config',
      file('a.conf', '[pci]\ndevice_spec = {managed: "no"}\n'),
    ]);
    expect(bad.exit).toBe(3);
    expect(JSON.parse(bad.out)).toMatchObject({
      schema: 1,
      form: 'nova',
      mistakes: [{ line: 2, column: 16, corrected: 'device_spec = {"managed": "no"}' }],
    });
    const good = hostdev([
      '--config',
      file('b.conf', '[pci]\ndevice_spec = {"vendor_id": "1b36", "switch": "a"}\n'),
      'config',
      'check',
    ]);
    expect([good.exit, good.err]).toEqual([0, '']);
    expect(good.out).toContain('b.conf:2:37: device_spec[0].switch: warning: ');
  });

  test('an inventory of elsewhere, by name and on stdin', () => {
    const inventory = file(
      'i.json',
      JSON.stringify({
        schema: 1,
        devices: [{ address: '0000:05:00.0', dev_type: 'type-PCI', vendor_id: 'abcd', product_id: '0001' }],
      }),
    );
    const conf = file('a.conf', '[pci]\ndevice_spec = {"vendor_id": "abcd"}\n');
    for (const [args, input] of [
      [['--inventory', inventory], ''],
      [['--inventory', '-'], execFileSync('cat', [inventory])],
    ] as const) {
      const ran = hostdev(['config', 'check', '-j', '--config', conf, ...args], { input });
      expect(JSON.parse(ran.out)).toMatchObject({ specs: [{ devices: ['0000:05:00.0'] }], mistakes: [] });
    }
  });

  test.each([
    ['a folder', '.', 4],
    ['nothing', 'gone', 4],
    ['no inventory', 'x.json', 3],
  ])('--inventory that is %s', (_, name, exit) => {
    file('x.json', '{"devices": [}');
    const ran = hostdev(['config', 'check', '-j', '--inventory', join(folder, name)]);
    expect(ran.exit).toBe(exit);
    expect(JSON.parse(ran.out)).toMatchObject({ error: { message: expect.stringContaining(join(folder, name)) } });
    expect(ran.err).toMatch(/\nTo go on: ./);
  });

  test.runIf(process.getuid?.() === 0)('a file that may not be read', () => {
    const secret = file('s.conf', '[pci]\n');
    chmodSync(secret, 0o000);
    chmodSync(folder, 0o755);
    const ran = hostdev(['config', 'check', '--config', secret], { uid: 65534, gid: 65534 });
    expect([ran.exit, ran.err]).toEqual([6, expect.stringContaining(`Failed to read ${secret}: EACCES`)]);
  });

  test('nothing in a file moves a terminal', () => {
    const ran = hostdev([
      'config',
      'check',
      '--config',
      file('t.conf', '[pci]\ndevice_spec = {"\\u001b]0;x\\u0007": 1, "vendor_id": "\\u001b[2J"}\nde\x1b[2Jvice = 1\n'),
    ]);
    expect(ran.exit).toBe(3);
    expect((ran.out + ran.err).replace(/\n/g, '')).not.toMatch(/\p{Cc}/u);
  });

  test('what comes through a pipe', () => {
    const command = `${process.execPath} ${CLI} config check -j --config <(sleep 0.2; echo '[pci]'; echo 'device_spec = 5')`;
    const ran = runCommand('bash', ['-c', command]);
    expect(JSON.parse(ran.out)).toMatchObject({ form: 'nova', mistakes: [{ line: 2 }] });
  });

  test('the TOML parser is loaded where there is TOML, and nowhere else', () => {
    const spy = file(
      'spy.cjs',
      'process.on("exit", () => require("node:fs").writeSync(2, "LOADED " + Object.keys(require.cache).join(" ")));',
    );
    const loads = (...args: string[]): boolean =>
      runCommand(process.execPath, ['-r', spy, CLI, ...args])
        .err.split('LOADED ')[1]
        ?.includes('/toml.js') ?? true;
    expect(loads('list', '-j')).toBe(false);
    expect(loads('config', 'check', '--config', file('a.conf', '[pci]\n'))).toBe(false);
    expect(loads('config', 'check', '--config', file('a.toml', '[pci]\n'))).toBe(true);
  });

  test('commands that have no use for them refuse --config and --inventory', () => {
    for (const option of ['--config', '--inventory']) expect(hostdev(['list', option, 'x']).exit).toBe(2);
  });
});

describe('small parts', () => {
  test.each([
    ['manged', 'managed'],
    ['Managed', 'managed'],
    ['vendor-id', 'vendor_id'],
    ['adress', 'address'],
    ['managde', 'managed'],
    ['xyz', null],
    ['', null],
    ['managed', null],
    ['m'.repeat(1000), null],
  ])('%.20s is near %s', (typed, meant) => {
    expect(nearestWord(typed, ['vendor_id', 'managed', 'address'])).toBe(meant);
  });

  test('the serial number in VPD', () => {
    const field = (name: string, text: string): string => name + String.fromCharCode(text.length) + text;
    const large = (tag: number, text: string): string =>
      String.fromCharCode(tag, text.length & 255, text.length >> 8) + text;
    const vpd = `${large(0x82, 'Card')}${large(0x90, field('PN', 'P1') + field('SN', 'MT2113X00000 ') + field('RV', 'x'))}\x78`;
    expect(vpdSerial(vpd)).toBe('MT2113X00000');
    expect(vpdSerial(vpd.slice(0, 9))).toBe(null);
    expect(vpdSerial(`\x78${vpd}`)).toBe(null);
    expect(vpdSerial(large(0x90, field('SN', '\x1b[2J')))).toBe(null);
    expect(vpdSerial('')).toBe(null);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => void vpdSerial(Buffer.from(bytes).toString('latin1'))),
    );
  });
});
