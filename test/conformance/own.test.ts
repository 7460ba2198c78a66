/**
 * Further scenarios of every kind and step, with the verdicts of Nova's own code (test/data/nova/README.md), compared
 * in full; and those in which Nova stumbles and hostdev does not.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { unreadKeys } from '../../src/simulate/keys.ts';
import { answerTo, comparable, type Json, type Row } from './compare.ts';

const folder = join(import.meta.dirname, '..', 'data', 'nova');
const files = readdirSync(folder).filter((n) => n.endsWith('.json'));
const rowsOf = (file: string): Row[] => JSON.parse(readFileSync(join(folder, file), 'utf8')) as Row[];

test('all files are here, and no scenario has a key that is not read', () => {
  const rows = files.flatMap(rowsOf);
  expect(rows.length).toBeGreaterThan(400);
  expect(new Set(rows.map((r) => r.case.id)).size).toBe(rows.length);
  expect(rows.flatMap((r) => unreadKeys(r.case))).toEqual([]);
});

describe.each(files)('%s', (file) => {
  test.each(rowsOf(file).map((r) => [r.case.id, r] as const))('%s', (_, row) => {
    expect(comparable(answerTo(row.case))).toEqual(comparable(withMessages(row.expected)));
  });
});

/** The data keep of an error its class only. */
function withMessages(value: Json): Json {
  if (Array.isArray(value)) return value.map(withMessages);
  if (typeof value !== 'object' || value === null) return value;
  const all = Object.fromEntries(Object.entries(value).map(([k, v]) => [k, withMessages(v)]));
  return Object.keys(value).join() === 'class' ? { ...all, message: 'x' } : all;
}

const device = (address: string, rest: object = {}): Json => ({
  address,
  vendor_id: '8086',
  product_id: '0443',
  ...rest,
});
const DEVICE = device('0000:0a:00.0');
const ALIAS = { name: 'a', vendor_id: '8086', product_id: '0443' };
const scenario = (more: { [key: string]: Json }): Json => ({
  device_spec: [{}],
  alias: [ALIAS],
  devices: [DEVICE],
  placement: false,
  ...more,
});

describe('where Nova crashes, a clear error', () => {
  test.each<[string, Json]>([
    ['vendor_id', 32902],
    ['vendor_id', true],
    ['vendor_id', { a: 1 }],
    ['product_id', null],
    ['product_id', 1.5],
    ['product_id', ['0443']],
    ['devname', ['eth0']],
    ['devname', { a: 1 }],
  ])('%s is %j', (key, value) => {
    const { spec_error: error } = answerTo(scenario({ device_spec: [{ [key]: value }] }));
    expect(error).toMatchObject({ class: 'PciConfigInvalidSpec', message: expect.stringContaining(`${key} is`) });
  });

  test.each<[string, Json]>([
    ['domain', true],
    ['bus', null],
    ['slot', 0],
    ['function', ['0']],
  ])('address field %s is %j', (key, value) => {
    const { spec_error: error } = answerTo(scenario({ device_spec: [{ address: { [key]: value } }] }));
    expect(error).toMatchObject({
      class: 'PciDeviceWrongAddressFormat',
      message: expect.stringContaining(`field ${key} is`),
    });
  });

  test('a number below 0 takes nothing', () => {
    const verdict = answerTo(scenario({ request: 'a:-1' }));
    expect(verdict.steps).toMatchObject([
      { stage: 'request', error: { class: 'ValueError' }, pools_after: [{ count: 1 }] },
    ]);
  });
});

describe('where Nova is wrong, the right answer', () => {
  test('a device that was unplugged while it was held is gone once it is freed', () => {
    const { steps } = answerTo(
      scenario({
        steps: [
          { op: 'claim', instance: 'x', request: 'a:1' },
          { op: 'refresh', devices: [] },
          { op: 'free', instance: 'x' },
          { op: 'claim', instance: 'y', request: 'a:1' },
        ],
      }),
    );
    expect(steps?.map((s) => s.statuses)).toEqual([
      { '0000:0a:00.0': { status: 'allocated', instance: 'x' } },
      { '0000:0a:00.0': { status: 'allocated', instance: 'x' } },
      {},
      {},
    ]);
    expect(steps?.[3]).toMatchObject({ stage: 'support', supported: false });
  });

  test('a PF that appears while its VF is held is not given out', () => {
    const vf = device('0000:81:10.0', { dev_type: 'type-VF', parent_addr: '0000:81:00.0' });
    const pf = device('0000:81:00.0', { dev_type: 'type-PF' });
    const alias = [
      { ...ALIAS, name: 'vf', device_type: 'type-VF' },
      { ...ALIAS, name: 'pf', device_type: 'type-PF' },
    ];
    const { steps } = answerTo(
      scenario({
        alias,
        devices: [vf],
        steps: [
          { op: 'claim', instance: 'x', request: 'vf:1' },
          { op: 'refresh', devices: [vf, pf] },
          { op: 'claim', instance: 'y', request: 'pf:1' },
          { op: 'free', instance: 'x' },
          { op: 'claim', instance: 'y', request: 'pf:1' },
        ],
      }),
    );
    expect(steps?.[1]?.statuses['0000:81:00.0']).toEqual({ status: 'unavailable', instance: null });
    expect(steps?.[2]).toMatchObject({ stage: 'support', supported: false });
    expect(steps?.[4]).toMatchObject({ stage: 'done', devices: ['0000:81:00.0'] });
  });

  test('a device reported twice is there once', () => {
    const verdict = answerTo(scenario({ devices: [DEVICE, DEVICE], request: 'a:2' }));
    expect(verdict.pools).toMatchObject([{ count: 1, devices: ['0000:0a:00.0'] }]);
    expect(verdict.steps).toMatchObject([{ stage: 'support', supported: false }]);
  });
});
