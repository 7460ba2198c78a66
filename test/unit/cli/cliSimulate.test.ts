/** `hostdev simulate` as a process: the contract of its output and exit code, and input that is no scenario. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import type { Verdict } from '../../../src/simulate/simulate.ts';
import type { Warning } from '../../../src/text/warning.ts';
import { hostdev, type Ran } from '../../mock/tree.ts';
import { texts } from '../../mock/warnings.ts';
import { EVER } from '../../patience.ts';

const folder = mkdtempSync(join(tmpdir(), 'hostdev-simulate-'));
afterAll(() => rmSync(folder, { recursive: true }));

const DEVICE = { address: '0000:0a:00.0', vendor_id: '8086', product_id: '0443', numa_node: 0 };
const ALIAS = { name: 'a', vendor_id: '8086', product_id: '0443' };
const SCENARIO = { id: 'x', device_spec: [{}], alias: [ALIAS], devices: [DEVICE], request: 'a:1' };

/** On stdin, below an empty root: nothing but the input is needed. */
const simulate = (input: unknown): Ran =>
  hostdev(['--root', folder, 'simulate', '-j'], { input: typeof input === 'string' ? input : JSON.stringify(input) });
const verdict = (ran: Ran): Verdict & { schema: number; warnings?: Warning[] } => JSON.parse(ran.out) as never;

function expectNone(ran: Ran, place: string): void {
  expect(ran.err).not.toContain('    at ');
  expect({ exit: ran.exit, code: ran.json.error?.code }).toEqual({ exit: 2, code: 'HOSTDEV_SCENARIO' });
  expect(ran.json.error.message).toContain(place);
}

test('a verdict has the keys of Nova’s at the top level, from a file, a pipe, or a row of a file of verdicts', () => {
  const file = join(folder, 'scenario.json');
  writeFileSync(file, JSON.stringify(SCENARIO));
  const ran = hostdev(['simulate', file, '-j']);
  expect(ran.exit).toBe(0);
  expect(verdict(ran)).toMatchObject({ schema: 1, id: 'x', spec_error: null, alias_error: null, tracker_error: null });
  expect(Object.keys(verdict(ran)).sort()).toEqual(
    [
      'schema',
      'id',
      'spec_error',
      'alias_error',
      'tracker_error',
      'aliases',
      'specs',
      'devices',
      'pools',
      'steps',
      'placement',
    ].sort(),
  );
  expect(verdict(ran).steps).toMatchObject([{ stage: 'done', instance: 'vm1', devices: ['0000:0a:00.0'] }]);
  for (const again of [
    simulate(SCENARIO),
    simulate({ case: SCENARIO, expected: {} }),
    hostdev(['simulate', '-', '-j'], { input: JSON.stringify(SCENARIO) }),
  ]) {
    expect(again.out).toBe(ran.out);
  }
});

test('what is wrong with specs, aliases and requests is in the verdict, and the exit code is 0', () => {
  const spec = simulate({ ...SCENARIO, device_spec: ['{"vendor_id": "8086"'] });
  expect(spec.exit).toBe(0);
  expect(spec.json.error).toBe(undefined);
  expect(verdict(spec).spec_error).toMatchObject({ class: 'PciConfigInvalidSpec', code: 'HOSTDEV_SPEC' });
  const alias = simulate({ ...SCENARIO, alias: [{ ...ALIAS, managed: 'no' }] });
  expect(verdict(alias)).toMatchObject({
    aliases: null,
    alias_error: { class: 'PciInvalidAlias', code: 'HOSTDEV_ALIAS' },
  });
  const request = simulate({ ...SCENARIO, request: 'b:1' });
  expect(verdict(request).steps).toMatchObject([{ stage: 'request', error: { code: 'HOSTDEV_ALIAS_ABSENT' } }]);
  const address = simulate({ ...SCENARIO, devices: [{ ...DEVICE, address: 'nonsense' }] });
  expect(verdict(address)).toMatchObject({
    tracker_error: { class: 'PciDeviceWrongAddressFormat' },
    devices: [{ address: 'nonsense', error: { code: 'HOSTDEV_SPEC_ADDRESS' } }],
    pools: [],
    steps: [{ stage: 'support', supported: false }],
  });
  const refresh = { op: 'refresh', devices: [{ ...DEVICE, address: '0a:00.0' }] };
  expect(verdict(simulate({ ...SCENARIO, steps: [refresh] })).steps).toMatchObject([
    { error: { class: 'PciDeviceWrongAddressFormat' }, pools_after: [{ count: 1 }] },
  ]);
});

test('what is worth saying is a warning', () => {
  const ran = simulate({ ...SCENARIO, device_spec: [{ manged: 'no' }, {}, {}], request: 'a' });
  expect(texts(verdict(ran).warnings)).toEqual([
    expect.stringContaining('did you mean managed?'),
    expect.stringContaining('device_spec 2'),
    expect.stringContaining('device_spec 3'),
    expect.stringContaining('has no number'),
  ]);
});

test('a key that nothing reads is a warning, with the key that was meant', () => {
  const ran = simulate({
    ...SCENARIO,
    remark: 1,
    device_specs: [],
    config: { report_in_placment: true },
    devices: [{ ...DEVICE, vendor: '8086' }],
    sysfs: { '0000:0a:00.0': { totalvfs: 4 } },
    host_cells: [{ id: 0, sockets: 1 }],
    steps: [
      { op: 'claim', instance: 'a', requests: 'a:1', port_requests: [{ spec: [{}], policy: 'legacy' }] },
      { op: 'refresh', device_specs: [], devices: [{ ...DEVICE, node: 0 }] },
      { op: 'free', instance: 'a', request: 'a:1' },
    ],
  });
  expect(ran.exit).toBe(0);
  const said = texts(verdict(ran).warnings).filter((w) => /does not read|is not read/.test(w));
  expect(said).toEqual([
    expect.stringMatching(/^the scenario .*"remark"/),
    expect.stringMatching(/^the scenario .*"device_specs".*did you mean device_spec\?/),
    expect.stringMatching(/^config .*did you mean report_in_placement\?/),
    expect.stringMatching(/^devices\[0\] .*"vendor"/),
    expect.stringMatching(/^host_cells\[0\] .*did you mean socket\?/),
    expect.stringMatching(/^sysfs\["0000:0a:00.0"\] .*"totalvfs"/),
    expect.stringMatching(/^steps\[0\] .*did you mean request\?/),
    expect.stringMatching(/^steps\[0\].port_requests\[0\] .*"policy"/),
    expect.stringMatching(/^steps\[1\] .*did you mean device_spec\?/),
    expect.stringMatching(/^steps\[1\].devices\[0\] .*"node"/),
    expect.stringMatching(/^steps\[2\] .*"request"/),
    expect.stringMatching(/^request beside steps is not read/),
  ]);
  const notes = (devices: object[]): string[] =>
    texts(verdict(simulate({ ...SCENARIO, devices })).warnings).filter((w) => w.includes('simulate does not read'));
  expect(notes(Array.from({ length: 500 }, () => ({ ...DEVICE, vendor: '8086' })))).toEqual([
    'devices[0] has a key "vendor" that simulate does not read, nor in 499 more',
  ]);
  expect(notes(Array.from({ length: 500 }, (_, i) => ({ ...DEVICE, [`slip${i}`]: 1 })))).toHaveLength(20);
});

test('for people: pools, providers and steps as text', () => {
  const ran = hostdev(['simulate'], { input: JSON.stringify({ ...SCENARIO, config: { report_in_placement: true } }) });
  expect(ran.out).toContain('cn1_0000:0A:00.0');
  expect(ran.out).toContain('1. claim vm1: done: 0000:0a:00.0');
});

describe('input that is no scenario', () => {
  test.each<[string, string, string]>([
    ['nothing', '', 'not JSON'],
    ['broken JSON', '{"device_spec": [', 'not JSON'],
    ['a list', '[]', 'one JSON object'],
    ['null', 'null', 'one JSON object'],
    ['no device_spec', '{"devices": []}', 'device_spec'],
    ['no devices', '{"device_spec": []}', 'devices'],
    ['lists in lists', `${'['.repeat(200_000)}${']'.repeat(200_000)}`, 'nested more than 32 deep'],
  ])('%s', (_, text, place) => expectNone(simulate(text), place));

  test.each<[string, object]>([
    ['device_spec', { device_spec: 'x' }],
    ['alias', { alias: {} }],
    ['devices[0]', { devices: [7] }],
    ['devices[0].address', { devices: [{ ...DEVICE, address: 7 }] }],
    ['devices[0].numa_node', { devices: [{ ...DEVICE, numa_node: '0' }] }],
    ['devices[0].dev_type', { devices: [{ ...DEVICE, dev_type: 'type-pf' }] }],
    ['devices[0].capabilities', { devices: [{ ...DEVICE, capabilities: [] }] }],
    ['config', { config: [] }],
    ['config.report_in_placement', { config: { report_in_placement: 'yes' } }],
    ['netdevs.eth0', { netdevs: { eth0: 1 } }],
    ['host_cells[0].id', { host_cells: [{ socket: 0 }] }],
    ['numa_cells[0]', { numa_cells: ['0'] }],
    ['port_requests[0].spec', { port_requests: [{}] }],
    ['port_requests[0].count', { port_requests: [{ spec: [{}], count: 1.5 }] }],
    ['steps[0].op', { steps: [{ op: 'burn' }] }],
    ['steps[1].instance', { steps: [{ op: 'claim', instance: 'a' }, { op: 'free' }] }],
    ['steps[0].devices[0].address', { steps: [{ op: 'refresh', devices: [{}] }] }],
    ['request', { request: 1 }],
  ])('%s of the wrong type', (place, wrong) => expectNone(simulate({ ...SCENARIO, ...wrong }), place));

  test.each<[string, string, string, string]>([
    ['line and column', '{"device_spec": [\n {"a": 1,\n ], "devices": []}', 'line 3, column 2', 'one JSON object'],
    ['single quotes', "{'device_spec': []}", 'line 1, column 2: a text in single quotes', 'one JSON object'],
    ['several, one a line', '{"device_spec": [], "devices": []}\n{"a": 1}\n', 'line 2, column 1', 'give one line'],
    ['blanks only', ' \n', 'is empty', 'one JSON object'],
  ])('broken JSON: %s', (_, text, place, hint) => {
    const ran = simulate(text);
    expectNone(ran, place);
    expect(ran.json.error.hint).toContain(hint);
  });

  test.each<[string, object]>([
    ['sysfs["0000:0a:00.0"]', { sysfs: { '0000:0a:00.0': 5 } }],
    ['sysfs["0000:0a:00.0"].sriov_totalvfs', { sysfs: { '0000:0a:00.0': { sriov_totalvfs: 'many' } } }],
    ['sysfs["0000:0a:00.0"].vendor', { sysfs: { '0000:0a:00.0': { vendor: ['8086'] } } }],
    ['config.trait_blanks', { config: { trait_blanks: 'keep' } }],
    ['devices[0].totalvfs', { devices: [{ ...DEVICE, totalvfs: '4' }] }],
    ['device_spec has more than 4096 values', { device_spec: Array.from({ length: 4097 }, () => ({})) }],
  ])('%s', (place, wrong) => expectNone(simulate({ ...SCENARIO, ...wrong }), place));

  test('a verdict of gigabytes', () => {
    const steps = Array.from({ length: 9000 }, () => ({ op: 'refresh' }));
    const devices = Array.from({ length: 900 }, (_, i) => ({
      ...DEVICE,
      address: `0000:${(i >> 3).toString(16).padStart(2, '0')}:00.${i & 7}`,
    }));
    const tag = { x: Array.from({ length: 100_000 }, (_, i) => i) };
    expectNone(simulate({ ...SCENARIO, devices, steps }), '900 devices');
    expectNone(simulate({ ...SCENARIO, devices, device_spec: [[{}, tag]] }), '400 MiB');
    expectNone(
      simulate({ ...SCENARIO, devices: [], steps: [{ op: 'refresh', devices, device_spec: [tag] }] }),
      '400 MiB',
    );
    expectNone(simulate({ ...SCENARIO, devices, device_spec: [JSON.stringify([tag])] }), '400 MiB');
  });

  test('bytes that are no UTF-8', () => {
    const file = join(folder, 'latin1.json');
    writeFileSync(file, Buffer.from('{"device_spec": ["\xe9"], "devices": []}', 'latin1'));
    expectNone(hostdev(['simulate', file, '-j']), 'UTF-8');
  });

  test('more than 64 MiB', () => {
    const file = join(folder, 'huge.json');
    writeFileSync(file, Buffer.alloc(65 * 1024 * 1024, ' '));
    expectNone(hostdev(['simulate', file, '-j']), '64 MiB');
  });

  test('a file that is not there, or a folder', () => {
    expect(hostdev(['simulate', join(folder, 'nothing'), '-j'])).toMatchObject({ exit: 4 });
    expect(hostdev(['simulate', folder, '-j'])).toMatchObject({ exit: 4 });
  });
});

describe('large and hostile scenarios end in time', () => {
  const inTime = (input: object): Ran => {
    const from = performance.now();
    const ran = simulate(input);
    expect(performance.now() - from).toBeLessThan(EVER);
    expect(ran.exit).toBe(0);
    return ran;
  };

  test('patterns made to take for ever', () => {
    const address = {
      bus: `${'(a|a?)+'.repeat(40)}x`,
      slot: `(${'(0*)*'.repeat(50)})*1$`,
      domain: '(.*.*.*.*)*(.*.*.*)*y',
    };
    expect(verdict(inTime({ ...SCENARIO, device_spec: [{ address }] })).devices).toMatchObject([{ spec_index: null }]);
  });

  test('10 MB of specs, and as many patterns as are taken', () => {
    const text = JSON.stringify(Array.from({ length: 300_000 }, () => ({ vendor_id: 'dead', product_id: 'beef' })));
    expect(verdict(inTime({ ...SCENARIO, device_spec: [text] })).spec_error).toMatchObject({ code: 'HOSTDEV_SPEC' });
    const two = [Array.from({ length: 4096 }, () => ({})), {}];
    expect(verdict(inTime({ ...SCENARIO, device_spec: two })).spec_error).toMatchObject({ code: 'HOSTDEV_SPEC' });
    const patterns = Array.from({ length: 4096 }, (_, i) => ({ address: { bus: `(a|a?)+${i}x`, slot: '(0*)*1' } }));
    inTime({ ...SCENARIO, device_spec: patterns });
  });

  test('a spec of 10 MB', () => {
    const spec = { traits: 'x,'.repeat(1_000_000), tag: 'y'.repeat(8_000_000) };
    inTime({ ...SCENARIO, device_spec: [spec], request: undefined });
  });

  test('keys of JavaScript objects are ordinary tags', () => {
    const text = JSON.stringify(SCENARIO).replace(
      '[{}]',
      '[{"__proto__": {"a": 1}, "constructor": "c", "toString": null}]',
    );
    const ran = simulate(text);
    expect(ran.exit).toBe(0);
    expect(JSON.stringify(verdict(ran).pools)).toContain('"__proto__":{"a":1},"constructor":"c","toString":null');
  });

  test('tens of thousands of devices', () => {
    const devices = Array.from({ length: 30_000 }, (_, i) => ({
      ...DEVICE,
      address: `${(i >> 8).toString(16).padStart(4, '0')}:${((i >> 3) & 31).toString(16).padStart(2, '0')}:00.${i & 7}`,
    }));
    inTime({ ...SCENARIO, devices });
  });
});
