/**
 * What must hold of every scenario, tried on all of Nova's and ours: the same thing said in another way has the same
 * verdict.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseScenario } from '../../src/simulate/scenario.ts';
import { simulate, type Verdict } from '../../src/simulate/simulate.ts';
import { answerTo, comparable, type Json, type Row } from './compare.ts';

type Scenario = { [key: string]: Json };

const data = join(import.meta.dirname, '..', 'data', 'nova');
const nova = readFileSync(join(import.meta.dirname, 'nova-pci.jsonl'), 'utf8')
  .trimEnd()
  .split('\n');
const cases: Scenario[] = [
  ...nova.map((line) => JSON.parse(line) as Row),
  ...readdirSync(data)
    .filter((n) => n.endsWith('.json'))
    .flatMap((n) => JSON.parse(readFileSync(join(data, n), 'utf8')) as Row[]),
].map((r) => r.case);

const RUNS = { numRuns: 10_000 };
const TIMEOUT = 120_000;
const anyCase = fc.constantFrom(...cases);
const isObject = (v: Json | undefined): v is Scenario => typeof v === 'object' && v !== null && !Array.isArray(v);
const listOf = (v: Json | undefined): Json[] => (Array.isArray(v) ? v : []);

/** Everything but the texts of errors, which quote what was written. */
const verdictOn = (scenario: Json): unknown => comparable(answerTo(scenario));

/** Answers are kept: each property asks for the same ones again. */
const known = new Map<Scenario, unknown>();
function verdictOf(scenario: Scenario): unknown {
  const before = known.get(scenario) ?? verdictOn(scenario);
  known.set(scenario, before);
  return before;
}

/**
 * The keys of every object in another order, though not those of netdevs and the like, whose order says nothing anyway.
 */
function shuffled(value: Json, random: () => number): Json {
  if (Array.isArray(value)) return value.map((v) => shuffled(v, random));
  if (!isObject(value)) return value;
  const entries = Object.entries(value).map(([k, v]): [number, string, Json] => [random(), k, shuffled(v, random)]);
  return Object.fromEntries(entries.sort(([a], [b]) => a - b).map(([, k, v]) => [k, v]));
}

const seeded = (seed: number): (() => number) => {
  let at = seed;
  return () => {
    at = (Math.imul(at, 1664525) + 1013904223) >>> 0;
    return at / 2 ** 32;
  };
};

describe('the same, said in another way', () => {
  test('keys in another order', { timeout: TIMEOUT }, () => {
    fc.assert(
      fc.property(anyCase, fc.integer(), (scenario, seed) => {
        expect(verdictOn(shuffled(scenario, seeded(seed)))).toEqual(verdictOf(scenario));
      }),
      RUNS,
    );
  });

  test('specs and aliases as texts, and specs in one list', () => {
    for (const scenario of cases) {
      const text = (v: Json): Json => (typeof v === 'string' ? v : JSON.stringify(v));
      const specs = listOf(scenario.device_spec);
      const asTexts = { ...scenario, device_spec: specs.map(text), alias: listOf(scenario.alias).map(text) };
      expect(verdictOn(asTexts)).toEqual(verdictOf(scenario));
      if (specs.every(isObject)) expect(verdictOn({ ...scenario, device_spec: [specs] })).toEqual(verdictOf(scenario));
    }
  });

  test('ids and addresses of specs in another spelling', { timeout: TIMEOUT }, () => {
    const hex = fc.record({
      x: fc.boolean(),
      upper: fc.boolean(),
      zeros: fc.constantFrom('', '0', '00'),
      blank: fc.boolean(),
    });
    const spell = (digits: string, h: { x: boolean; upper: boolean; zeros: string; blank: boolean }): string => {
      const bare = h.zeros + digits;
      const cased = h.upper ? bare.toUpperCase() : bare;
      return `${h.blank ? ' ' : ''}${h.x ? '0x' : ''}${cased}${h.blank ? '\t' : ''}`;
    };
    const isId = (v: Json | undefined): v is string => typeof v === 'string' && /^[0-9a-f]{4}$/.test(v);
    fc.assert(
      fc.property(anyCase, fc.array(hex, { minLength: 6, maxLength: 6 }), (scenario, [a, b, c, d, e, f]) => {
        if (!a || !b || !c || !d || !e || !f) return;
        const respell = (spec: Json): Json => {
          if (!isObject(spec)) return spec;
          const again = { ...spec };
          if (isId(spec.vendor_id)) again.vendor_id = spell(spec.vendor_id, a);
          if (isId(spec.product_id)) again.product_id = spell(spec.product_id, b);
          const address = /^([0-9a-f]{4}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$/.exec(`${spec.address}`);
          if (address !== null) {
            const [, dom = '', bus = '', slot = '', func = ''] = address;
            again.address = `${spell(dom, c)}:${spell(bus, d)}:${spell(slot, e)}.${spell(func, f)}`;
          }
          return again;
        };
        const again = { ...scenario, device_spec: listOf(scenario.device_spec).map(respell) };
        expect(verdictOn(again)).toEqual(verdictOf(scenario));
      }),
      RUNS,
    );
  });

  test('a spec behind one that takes everything changes nothing but the list of specs', () => {
    for (const scenario of cases) {
      const specs = listOf(scenario.device_spec);
      const before = answerTo({ ...scenario, device_spec: [...specs, {}] });
      if (before.spec_error !== null) continue;
      const after = answerTo({
        ...scenario,
        device_spec: [...specs, {}, { product_id: '0443', trusted: 'true', x: [1] }],
      });
      expect(comparable({ ...after, specs: null })).toEqual(comparable({ ...before, specs: null }));
    }
  });

  test('a request as one claim or as a list of one step', () => {
    let claims = 0;
    for (const scenario of cases) {
      if (scenario.steps !== undefined || (scenario.request ?? scenario.port_requests) === undefined) continue;
      const { request, port_requests, numa_cells, affinity_policy, group_policy, force, ...host } = scenario;
      const all = { request, port_requests, numa_cells, affinity_policy, group_policy, force };
      const given = Object.fromEntries(Object.entries(all).filter((e): e is [string, Json] => e[1] !== undefined));
      claims += 1;
      expect(verdictOn({ ...host, steps: [{ op: 'claim', instance: 'vm1', ...given }] })).toEqual(verdictOf(scenario));
    }
    expect(claims).toBeGreaterThan(150);
  });
});

describe('after every step', () => {
  const steps = (v: Verdict): NonNullable<Verdict['steps']> => v.steps ?? [];

  test('a device is either in one pool or not available, and pools count what they list', () => {
    let seen = 0;
    for (const scenario of cases) {
      const specsChange = listOf(scenario.steps).some((s) => isObject(s) && s.device_spec !== undefined);
      for (const { pools_after: pools, statuses } of steps(answerTo(scenario))) {
        seen += 1;
        const listed = pools.flatMap((p) => p.devices);
        expect(pools.map((p) => p.count)).toEqual(pools.map((p) => p.devices.length));
        expect(new Set(listed).size).toBe(listed.length);
        const free = Object.keys(statuses).filter((a) => statuses[a]?.status === 'available');
        // A device that the new specs do not name stays listed (docs/decisions/0015).
        if (!specsChange) expect(listed.sort()).toEqual(free.sort());
      }
    }
    expect(seen).toBeGreaterThan(250);
  });

  test('a refresh that brings nothing new changes nothing', () => {
    for (const scenario of cases) {
      const given = answerTo(scenario);
      if (given.pools === undefined || given.tracker_error !== null) continue;
      const [step] = steps(answerTo({ ...scenario, steps: [{ op: 'refresh' }] }));
      expect(step?.pools_after).toEqual(given.pools);
      if (given.placement !== undefined) expect(step?.placement_after).toEqual(given.placement);
    }
  });

  test('when all is freed, what is available is what was', { timeout: TIMEOUT }, () => {
    let freed = 0;
    for (const scenario of cases) {
      const all = listOf(scenario.steps).filter(isObject);
      const { steps: done = [], pools = [] } = answerTo(scenario);
      const holders = new Set(done.filter((s) => s.stage === 'done').map((s) => `${s.instance}`));
      if (holders.size === 0 || all.some((s) => s.op === 'refresh')) continue;
      const claims = all.length > 0 ? all : [{ ...scenario, op: 'claim', instance: 'vm1' }];
      const frees = [...holders].map((instance) => ({ op: 'free', instance }));
      const { steps: after = [] } = answerTo({ ...scenario, steps: [...claims, ...frees] });
      const devices = (list: { devices: string[] }[]): string[] => list.flatMap((p) => p.devices).sort();
      expect(devices(after.at(-1)?.pools_after ?? [])).toEqual(devices(pools));
      freed += 1;
    }
    expect(freed).toBeGreaterThan(100);
  });
});

test('a scenario is read without being changed, and twice gives twice the same', () => {
  for (const scenario of cases) {
    const bytes = Buffer.from(JSON.stringify(scenario));
    const one = parseScenario(bytes);
    expect(simulate(one)).toEqual(simulate(one));
  }
});
