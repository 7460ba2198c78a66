/** What must hold for every host, specs and requests: 10,000 random ones each. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type DeviceSpec,
  type HostFacts,
  matchSpec,
  NO_FACTS,
  parseDeviceSpec,
  printSpec,
  SPEC_CONTEXT,
} from '../../../src/nova/grammar/deviceSpec.ts';
import { NovaError } from '../../../src/nova/grammar/novaError.ts';
import { compileField } from '../../../src/nova/grammar/regex.ts';
import type { PciRequest } from '../../../src/nova/grammar/request.ts';
import type { PoolDevice } from '../../../src/pool/device.ts';
import { type ClaimOptions, PciTracker } from '../../../src/pool/tracker.ts';
import type { JsonObject } from '../../../src/text/json.ts';

const RUNS = { numRuns: 10_000 };

const numa = fc.constantFrom(0, 1, null);
const base = { vendor_id: '8086', parent_addr: null, card_serial_number: null, parent_ifname: null };

/** Cards with VFs, and plain devices, reported in any order. */
const devicesArb: fc.Arbitrary<PoolDevice[]> = fc
  .tuple(fc.array(fc.tuple(fc.integer({ min: 0, max: 4 }), numa), { maxLength: 3 }), fc.array(numa, { maxLength: 3 }))
  .chain(([cards, plain]) => {
    const all: PoolDevice[] = cards.flatMap(([vfs, node], c) => {
      const pf = `0000:8${c}:00.0`;
      return [
        { ...base, address: pf, product_id: '1528', dev_type: 'type-PF' as const, numa_node: node },
        ...Array.from(
          { length: vfs },
          (_, v): PoolDevice => ({
            ...base,
            address: `0000:8${c}:10.${v}`,
            product_id: '1515',
            dev_type: v === 3 ? 'vdpa' : 'type-VF',
            parent_addr: pf,
            numa_node: node,
          }),
        ),
      ];
    });
    for (const [i, node] of plain.entries())
      all.push({ ...base, address: `0000:0a:00.${i}`, product_id: '0443', dev_type: 'type-PCI', numa_node: node });
    return fc.shuffledSubarray(all, { minLength: all.length });
  });

const requestArb: fc.Arbitrary<PciRequest> = fc.record({
  alias_name: fc.constant('x'),
  count: fc.integer({ min: 0, max: 5 }),
  numa_policy: fc.constantFrom(null, 'required' as const, 'preferred' as const, 'socket' as const),
  spec: fc.array(
    fc.oneof(
      fc.record({ dev_type: fc.constantFrom('type-PF', 'type-VF', 'type-PCI', 'vdpa') }),
      fc.constant({ vendor_id: '8086' }),
    ),
    { minLength: 1, maxLength: 2 },
  ),
});

const optionsArb: fc.Arbitrary<ClaimOptions> = fc.record({
  place: fc.record({
    numaCells: fc.subarray([0, 1]),
    hostCells: fc.constant([
      { id: 0, socket: 0 },
      { id: 1, socket: 1 },
    ]),
  }),
  spread: fc.boolean(),
});

type Op = { consumer: string; requests: PciRequest[]; options: ClaimOptions } | { free: string };
const consumer = fc.constantFrom('a', 'b', 'c');
const opArb: fc.Arbitrary<Op> = fc.oneof(
  {
    arbitrary: fc.record({
      consumer,
      requests: fc.array(requestArb, { minLength: 1, maxLength: 2 }),
      options: optionsArb,
    }),
    weight: 3,
  },
  { arbitrary: fc.record({ free: consumer }), weight: 1 },
);

const specObjects: fc.Arbitrary<JsonObject> = fc.record(
  {
    vendor_id: fc.constantFrom('8086', '*', '10de', '0x8086'),
    product_id: fc.constantFrom('1515', '1528', '0443', '*'),
    address: fc.oneof(
      fc.constantFrom('*:*:*.*', '0000:80:00.0', '80:', ':10.', '.1', '0000:81:10.*', '*:0a:*.0'),
      fc.record(
        { bus: fc.constantFrom('8', '0a', '8[01]', '.*'), function: fc.constantFrom('0', '[1-3]', '') },
        { requiredKeys: [] },
      ),
    ),
    managed: fc.constantFrom('yes', 'no', true, null),
    remote_managed: fc.constantFrom('false', 'no'),
    physical_network: fc.constantFrom('p1', null),
    tag: fc.jsonValue({ maxDepth: 1 }) as fc.Arbitrary<never>,
  },
  { requiredKeys: [] },
);

const facts: HostFacts = { ...NO_FACTS, isPf: (a) => /^0000:8\d:00\.0$/.test(a) };
const parse = (value: JsonObject): DeviceSpec => {
  const [spec] = parseDeviceSpec(value, { ...SPEC_CONTEXT, facts }).specs;
  if (spec === undefined) throw new Error('no spec');
  return spec;
};

/** Runs the operations; refusals are part of it. */
function play(tracker: PciTracker, ops: Op[], each: () => void = () => {}): void {
  for (const op of ops) {
    try {
      if ('free' in op) tracker.free(op.free);
      else tracker.claim(op.consumer, op.requests, op.options);
    } catch (e) {
      if (!(e instanceof NovaError)) throw e;
    }
    each();
  }
}

const trackerOf = (specs: JsonObject[], devices: PoolDevice[]): PciTracker =>
  new PciTracker(specs.map(parse), devices, facts);
const snapshot = (t: PciTracker): string => JSON.stringify([t.pools(), t.devices()]);

/** Which devices are free in which pool; order and empty pools are history. */
const contents = (t: PciTracker): string[] =>
  t
    .pools()
    .filter((p) => p.count > 0)
    .map((p) =>
      JSON.stringify(Object.entries({ ...p, devices: p.devices.toSorted() }).sort(([a], [b]) => (a < b ? -1 : 1))),
    )
    .sort();

const specsArb = fc.array(specObjects, { minLength: 1, maxLength: 3 });
const opsArb = fc.array(opArb, { maxLength: 4 });

describe('claims', () => {
  test('no device is given twice', () => {
    fc.assert(
      fc.property(devicesArb, opsArb, (devices, ops) => {
        const tracker = trackerOf([{}], devices);
        play(tracker, ops, () => {
          const held = ['a', 'b', 'c'].flatMap((c) => tracker.held(c) ?? []);
          const free = tracker.pools().flatMap((p) => p.devices);
          const all = [...held, ...free];
          return expect(new Set(all).size).toBe(all.length);
        });
      }),
      RUNS,
    );
  });

  test('a claim that is freed leaves the pools as they were', () => {
    fc.assert(
      fc.property(
        specsArb,
        devicesArb,
        opsArb,
        fc.array(requestArb, { minLength: 1, maxLength: 2 }),
        optionsArb,
        (specs, devices, ops, requests, options) => {
          const tracker = trackerOf(specs, devices);
          play(tracker, ops);
          const before = contents(tracker);
          if (!tracker.isSupported(requests, options)) return;
          tracker.claim('new', requests, options);
          tracker.free('new');
          expect(contents(tracker)).toEqual(before);
        },
      ),
      RUNS,
    );
  });

  test('a PF is never beside its VFs', () => {
    fc.assert(
      fc.property(devicesArb, opsArb, (devices, ops) => {
        const tracker = trackerOf([{}], devices);
        play(tracker, ops, () => {
          const states = tracker.devices();
          const held = new Set(states.filter((s) => s.consumer !== null).map((s) => s.device.address));
          const free = new Set(tracker.pools().flatMap((p) => p.devices));
          for (const { device } of states) {
            const pf = device.parent_addr;
            if (pf === null) continue;
            const isMixed =
              (held.has(device.address) && (held.has(pf) || free.has(pf))) ||
              (held.has(pf) && free.has(device.address));
            expect(isMixed).toBe(false);
          }
        });
      }),
      RUNS,
    );
  });

  test('a refused request changes nothing, and isSupported says so before', () => {
    let refused = 0;
    fc.assert(
      fc.property(
        specsArb,
        devicesArb,
        opsArb,
        fc.array(requestArb, { minLength: 1, maxLength: 3 }),
        optionsArb,
        (specs, devices, ops, requests, options) => {
          const tracker = trackerOf(specs, devices);
          play(tracker, ops);
          const before = snapshot(tracker);
          const isSupported = tracker.isSupported(requests, options);
          expect(snapshot(tracker)).toBe(before);
          if (isSupported) return;
          refused += 1;
          expect(() => tracker.claim('new', requests, options)).toThrow(NovaError);
          expect(snapshot(tracker)).toBe(before);
        },
      ),
      RUNS,
    );
    expect(refused).toBeGreaterThan(1000);
  });
});

describe('specs', () => {
  test('the first that matches decides', () => {
    fc.assert(
      fc.property(fc.array(specObjects, { minLength: 2, maxLength: 4 }), devicesArb, (objects, devices) => {
        const specs = objects.map(parse);
        for (const device of devices) {
          const alone = specs.findIndex((s) => matchSpec([s], device, facts).index === 0);
          const { index, tags } = matchSpec(specs, device, facts);
          expect(index).toBe(alone < 0 ? null : alone);
          expect(tags).toBe(alone < 0 ? null : specs[alone]?.tags);
        }
      }),
      RUNS,
    );
  });

  test('printed and parsed again they are the same', () => {
    fc.assert(
      fc.property(specObjects, fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 })), (object, more) => {
        const spec = parse({
          ...(more as JsonObject),
          ...object,
          vendor_id: '8086',
          product_id: '*',
          address: object.address ?? null,
          devname: '',
          managed: 'no',
        });
        // -0 is 0 in JSON.
        const again = parseDeviceSpec(printSpec(spec), { ...SPEC_CONTEXT, facts }).specs;
        expect(JSON.stringify(again)).toBe(JSON.stringify([spec]));
      }),
      RUNS,
    );
  });

  test('a field more never matches more', () => {
    fc.assert(
      fc.property(specObjects, specObjects, devicesArb, (object, other, devices) => {
        const [extra] = Object.entries(other).filter(([k]) => !Object.hasOwn(object, k));
        if (extra === undefined) return;
        const [wide, narrow] = [parse(object), parse({ ...object, [extra[0]]: extra[1] })];
        for (const d of devices) {
          if (matchSpec([narrow], d, facts).index === 0) expect(matchSpec([wide], d, facts).index).toBe(0);
        }
      }),
      RUNS,
    );
  });
});

test('patterns match as regular expressions do', () => {
  const atom = fc.constantFrom('0', '8', 'a', '.', '[0-8]', '[^a]', '\\d', '\\w', '\\b', '^', '$', '\\x30');
  const { pattern } = fc.letrec<{ pattern: string; part: string }>((tie) => ({
    pattern: fc.array(tie('part'), { maxLength: 4 }).map((p) => p.join('')),
    part: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      atom,
      fc
        .tuple(
          fc.constantFrom('0', '8', '.', '[0-8]'),
          fc.constantFrom('*', '+', '?', '{2}', '{1,}', '{0,2}', '*?', '+?'),
        )
        .map((p) => p.join('')),
      fc.tuple(tie('pattern'), fc.constantFrom('', '*', '+', '?', '{2,3}')).map(([p, n]) => `(${p})${n}`),
      fc.tuple(tie('pattern'), tie('pattern')).map(([a, b]) => `(?:${a}|${b})`),
      fc.tuple(fc.constantFrom('?=', '?!'), tie('pattern')).map(([k, p]) => `(${k}${p})`),
    ),
  }));
  fc.assert(
    fc.property(
      pattern.filter((p) => p.length <= 40),
      fc.array(fc.stringMatching(/^[08a]{0,5}$/), { minLength: 1, maxLength: 4 }),
      (p, subjects) => {
        const ours = compileField(p);
        const theirs = new RegExp(`^(?:${p})`);
        for (const s of subjects) expect([s, ours(s)]).toEqual([s, theirs.test(s)]);
      },
    ),
    RUNS,
  );
});
