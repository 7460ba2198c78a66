import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseConfig } from '../../../src/pci/configSpace.ts';
import { explainGroup, type Member } from '../../../src/pci/grouping.ts';
import { ACS_ON, configBytes, type MockConfig } from '../../mock/config.ts';

const member = (address: string, c: MockConfig | null, above: string[] = [], isVf = false): Member => ({
  address,
  above,
  isVf,
  config: c === null ? { unmeasured: 'EACCES' } : parseConfig(configBytes(c)),
});

const PORT = '0000:00:1c.0';
const bridge = (more: MockConfig = {}): MockConfig => ({ pcie: 'root-port', buses: [1, 9], ...more });

describe('why a group is one', () => {
  test('a device alone needs no reason', () => {
    expect(explainGroup([member('0000:01:00.0', {})])).toEqual([]);
    expect(explainGroup([])).toEqual([]);
  });

  test('a root port without ACS', () => {
    expect(explainGroup([member(PORT, bridge()), member('0000:01:00.0', {}, [PORT])])).toEqual([
      { kind: 'port-acs', at: PORT, members: [PORT, '0000:01:00.0'], pcie: 'root-port', missing: [], unmeasured: null },
    ]);
  });

  test('a downstream port with bits off names them; a port above that has them all is no reason', () => {
    const up = '0000:02:00.0';
    const down = '0000:03:00.0';
    const joins = explainGroup([
      member(PORT, bridge({ acs: ACS_ON })),
      member(up, { pcie: 'upstream-port', buses: [3, 9] }, [PORT]),
      member(down, { pcie: 'downstream-port', buses: [4, 4], acs: { cap: 0x1d, ctrl: 0x0d } }, [up, PORT]),
      member('0000:04:00.0', {}, [down, up, PORT]),
    ]);
    expect(joins).toContainEqual(expect.objectContaining({ kind: 'port-acs', at: down, missing: ['UF'] }));
    // The root port isolates, so what holds it and the switch together is not seen here.
    expect(joins.filter((j) => j.at === PORT && j.kind === 'port-acs')).toEqual([]);
    expect(joins.at(-1)?.kind).toBe('unknown');
  });

  test('the port that lacks it may be further up: it takes all that is below it', () => {
    const up = '0000:02:00.0';
    const down = '0000:03:00.0';
    const joins = explainGroup([
      member(PORT, bridge()),
      member(up, { pcie: 'upstream-port', buses: [3, 9] }, [PORT]),
      member(down, { pcie: 'downstream-port', buses: [4, 4], acs: ACS_ON }, [up, PORT]),
      member('0000:04:00.0', {}, [down, up, PORT]),
    ]);
    expect(joins).toEqual([
      expect.objectContaining({ kind: 'port-acs', at: PORT, members: [PORT, up, down, '0000:04:00.0'] }),
    ]);
  });

  test.each([
    ['pcie-to-pci-bridge', 'pcie-to-pci-bridge'],
    ['a conventional bridge', null],
  ] as const)('%s', (_, pcie) => {
    const joins = explainGroup([
      member('0000:25:00.0', { pcie, buses: [0x26, 0x26] }),
      member('0000:26:01.0', { pcie: null }, ['0000:25:00.0']),
      member('0000:26:02.0', { pcie: null }, ['0000:25:00.0']),
    ]);
    expect(joins).toEqual([expect.objectContaining({ kind: 'conventional-bridge', at: '0000:25:00.0', pcie })]);
  });

  test('functions of a slot: only those that do not keep apart', () => {
    const joins = explainGroup([
      member('0000:91:00.0', { multifunction: true }),
      member('0000:91:00.1', {}),
      member('0000:91:00.2', { multifunction: true, acs: { cap: 0x0c, ctrl: 0x04 } }),
    ]);
    expect(joins).toEqual([
      expect.objectContaining({
        kind: 'functions-acs',
        members: ['0000:91:00.0', '0000:91:00.1', '0000:91:00.2'],
        missing: ['CR'],
      }),
    ]);
    const one = explainGroup([
      member('0000:91:00.0', { multifunction: true, acs: ACS_ON }),
      member('0000:91:00.1', { multifunction: true }),
    ]);
    expect(one).toEqual([expect.objectContaining({ kind: 'unknown' })]);
  });

  test("a VF is never one of several functions: it shares its slot's number only", () => {
    const joins = explainGroup([member('0000:22:00.0', { multifunction: true }), member('0000:22:00.1', {}, [], true)]);
    expect(joins).toEqual([expect.objectContaining({ kind: 'unknown' })]);
  });

  test('what cannot be read is said, and joins nothing for another reason', () => {
    expect(explainGroup([member(PORT, null), member('0000:01:00.0', {}, [PORT])])).toEqual([
      expect.objectContaining({ kind: 'unmeasured', at: PORT, unmeasured: { unmeasured: 'EACCES' } }),
    ]);
    expect(explainGroup([member('0000:91:00.0', null), member('0000:91:00.1', null)])).toEqual([
      expect.objectContaining({ kind: 'unmeasured', at: '0000:91:00.0' }),
    ]);
  });

  test('what nothing joins is said too', () => {
    const joins = explainGroup([member('0000:01:00.0', {}), member('0000:05:00.0', {})]);
    expect(joins).toEqual([expect.objectContaining({ kind: 'unknown', members: ['0000:01:00.0', '0000:05:00.0'] })]);
  });

  test('whatever the group: every member of a group of several is named by a reason', () => {
    const address = fc
      .tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 7 }))
      .map(([b, s, f]) => `0000:0${b}:0${s}.${f}`);
    const space = fc.oneof(
      fc.constant(null),
      fc.record({ multifunction: fc.boolean(), acs: fc.constantFrom(undefined, ACS_ON) }),
    );
    fc.assert(
      fc.property(
        fc.uniqueArray(address, { minLength: 2, maxLength: 12 }),
        fc.array(space, { minLength: 12, maxLength: 12 }),
        (list, spaces) => {
          const joins = explainGroup(list.map((a, i) => member(a, (spaces[i] ?? null) as MockConfig | null)));
          // Each part of the group is reached from the others: by a reason, or by the one that says that there is none.
          const reached = new Set([list[0]]);
          for (let grew = true; grew; ) {
            const before = reached.size;
            for (const j of joins) if (j.members.some((m) => reached.has(m))) for (const m of j.members) reached.add(m);
            grew = reached.size > before;
          }
          expect([...reached].sort()).toEqual([...list].sort());
        },
      ),
    );
  });
});
