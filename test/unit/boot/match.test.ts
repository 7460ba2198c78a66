/** Which device a wish means: identity before address, and nothing by a guess. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Match, matchWishes, noMatchText } from '../../../src/boot/match.ts';
import type { Wish } from '../../../src/boot/wishes.ts';
import { type Card, pfWishOf, viewOfCards, wishOf } from '../../mock/wishes.ts';

const NIC: Card = { address: '0000:21:00.0', path: 'pci0000:20/04.0/00.0', ids: '8086:10d3', subsystem: '8086:0000' };
const TWIN: Card = { ...NIC, address: '0000:22:00.0', path: 'pci0000:20/05.0/00.0' };
const DISK: Card = { address: '0000:23:00.0', path: 'pci0000:20/06.0/00.0', ids: '144d:a808' };
const SERIAL = '00-1b-21-ff-ff-3c-4d-5e';

const one = (cards: readonly Card[], wish: Wish): Match => matchWishes(viewOfCards(cards), [wish])[0] as Match;
const outcome = (m: Match): string => (m.device === null ? m.why.kind : `${m.device.address} by ${m.by}`);

describe('one wish', () => {
  test('the same device at a new bus number, its twin at the old one', () => {
    const now = [
      { ...NIC, address: '0000:22:00.0' },
      { ...TWIN, address: '0000:21:00.0' },
    ];
    expect(outcome(one(now, wishOf(NIC)))).toBe('0000:22:00.0 by path');
  });

  test('taken out: nothing, whatever is at its address, and that is said', () => {
    expect(outcome(one([TWIN, DISK], wishOf(NIC)))).toBe('absent');
    const m = one([{ ...DISK, address: NIC.address }], wishOf(NIC));
    expect(m).toMatchObject({ device: null, why: { kind: 'absent', now: NIC.address } });
    if (m.device === null) expect(noMatchText(m.wish, m.why)).toContain(`${NIC.address} is another device now`);
  });

  test.each([
    ['vendor and product', { ids: '144d:a808' }],
    ['product', { ids: '8086:10d4' }],
    ['subsystem', { subsystem: '8086:0001' }],
    ['no subsystem', { subsystem: undefined }],
  ])('another card in its slot, at its address: %s', (_, other) => {
    expect(one([{ ...NIC, ...other } as Card], wishOf(NIC))).toMatchObject({
      device: null,
      why: { kind: 'other-device', at: NIC.address },
    });
  });

  test.each([
    ['serial', SERIAL, '00-1b-21-ff-ff-3c-4d-5f'],
    ['nvme_serial', 'S4X1', 'S4X2'],
    ['mac', '52:54:00:00:00:01', '52:54:00:00:00:02'],
  ] as const)('another %s in its slot: another card; unseen on either side: the slot tells', (mark, wished, seen) => {
    const wish = wishOf({ ...NIC, marks: { [mark]: wished } });
    expect(one([{ ...NIC, marks: { [mark]: seen } }], wish)).toMatchObject({
      device: null,
      why: { kind: 'other-card', mark, seen },
    });
    expect(outcome(one([NIC], wish))).toBe('0000:21:00.0 by path');
    expect(outcome(one([{ ...NIC, marks: { [mark]: seen } }], wishOf(NIC)))).toBe('0000:21:00.0 by path');
  });

  test('the same card in another slot is told by its number, a card of the same ids is not', () => {
    const wish = wishOf({ ...NIC, marks: { serial: SERIAL } });
    expect(outcome(one([{ ...TWIN, marks: { serial: SERIAL } }], wish))).toBe('0000:22:00.0 by number');
    expect(outcome(one([TWIN], wish))).toBe('absent');
    expect(outcome(one([{ ...TWIN, ids: '8086:10d4', marks: { serial: SERIAL } }], wish))).toBe('absent');
    // Path and identity changed: neither.
    expect(outcome(one([{ ...TWIN, marks: { serial: '00-1b-21-ff-ff-3c-4d-5f' } }], wish))).toBe('absent');
  });

  test('the other function of a card shows the same number, and is not it', () => {
    const wish = wishOf({ ...NIC, marks: { serial: SERIAL } });
    const port1: Card = { ...TWIN, address: '0000:22:00.1', path: 'pci0000:20/05.0/00.1', marks: { serial: SERIAL } };
    expect(outcome(one([port1], wish))).toBe('absent');
  });

  test('a number that several show tells nothing', () => {
    const wish = wishOf({ ...NIC, marks: { serial: SERIAL } });
    const far: Card = { ...TWIN, address: '0000:25:00.0', path: 'pci0000:20/08.0/00.0', marks: { serial: SERIAL } };
    expect(outcome(one([{ ...TWIN, marks: { serial: SERIAL } }, far], wish))).toBe('several');
  });

  test('one number agrees and another does not: not that card', () => {
    const wish = wishOf({ ...NIC, marks: { serial: SERIAL, mac: '52:54:00:00:00:01' } });
    const mixed = { serial: SERIAL, mac: '52:54:00:00:00:02' };
    expect(outcome(one([{ ...NIC, marks: mixed }], wish))).toBe('other-card');
    expect(outcome(one([{ ...TWIN, marks: mixed }], wish))).toBe('absent');
  });

  test('a list that is not whole: not known, which is not absent', () => {
    expect(matchWishes(viewOfCards([], 'EIO'), [wishOf(NIC)])).toMatchObject([
      { device: null, why: { kind: 'unread' } },
    ]);
  });
});

describe('PFs and VFs', () => {
  const PF: Card = { ...NIC, totalVfs: 7, vfs: ['0000:21:10.0', '0000:21:10.2'] };

  test('a VF by its PF and its number, wherever that is now', () => {
    const moved: Card = { ...PF, address: '0000:26:00.0', vfs: ['0000:26:10.0', '0000:26:10.2'] };
    expect(outcome(one([moved], wishOf(PF, { vf: 1, address: '0000:21:10.2' })))).toBe('0000:26:10.2 by path');
    expect(one([moved], wishOf(PF, { vf: 2 }))).toMatchObject({
      device: null,
      why: { kind: 'no-vf', pf: '0000:26:00.0', vf: 2 },
    });
  });

  test('a [[pf]] of what can have no VFs', () => {
    expect(outcome(one([PF], pfWishOf(PF, 2)))).toBe('0000:21:00.0 by path');
    expect(outcome(one([NIC], pfWishOf(PF, 2)))).toBe('no-pf');
  });

  test('a PF and its VFs are two matters', () => {
    const matches = matchWishes(viewOfCards([PF]), [pfWishOf(PF, 2), wishOf(PF, { driver: 'host' })]);
    expect(matches.map(outcome)).toEqual(['0000:21:00.0 by path', '0000:21:00.0 by path']);
  });
});

describe('several wishes', () => {
  test('cards that changed their slots', () => {
    const a = { ...NIC, marks: { serial: SERIAL } };
    const b = { ...TWIN, marks: { serial: '00-1b-21-ff-ff-3c-4d-5f' } };
    const swapped = [
      { ...a, path: b.path },
      { ...b, path: a.path },
    ];
    expect(matchWishes(viewOfCards(swapped), [wishOf(a), wishOf(b)]).map(outcome)).toEqual([
      '0000:21:00.0 by number',
      '0000:22:00.0 by number',
    ]);
  });

  test('a number never takes what another wish has by its slot', () => {
    const shared = { serial: SERIAL };
    const wishes = [wishOf({ ...NIC, marks: shared }), wishOf({ ...TWIN, marks: shared })];
    expect(matchWishes(viewOfCards([{ ...TWIN, marks: shared }]), wishes).map(outcome)).toEqual([
      'absent',
      '0000:22:00.0 by path',
    ]);
  });
});

// Every host that a few cards, slots, ids and numbers make, and any wish made on one and looked for on another.

const SLOTS = ['pci0000:20/04.0/00.0', 'pci0000:20/05.0/00.0', 'pci0000:20/05.0/00.1', 'pci0000:40/01.0/00.0'];
const ADDRESSES = ['0000:21:00.0', '0000:22:00.0', '0000:22:00.1', '0000:41:00.0'];
const aHost = fc
  .record({
    addresses: fc.shuffledSubarray(ADDRESSES, { minLength: 4 }),
    cards: fc.array(
      fc.record({
        ids: fc.constantFrom('8086:10d3', '8086:10d4'),
        serial: fc.constantFrom(null, 'aa', 'bb'),
        mac: fc.constantFrom(null, null, '52:54:00:00:00:01'),
        there: fc.boolean(),
      }),
      { minLength: 4, maxLength: 4 },
    ),
  })
  .map(({ addresses, cards }) =>
    cards.flatMap(({ ids, serial, mac, there }, n): Card[] =>
      there ? [{ address: addresses[n] as string, path: SLOTS[n] as string, ids, marks: { serial, mac } }] : [],
    ),
  );

test('whatever changes: no device by its address, none twice, none against its ids or its number', () => {
  fc.assert(
    fc.property(aHost, aHost, (then, now) => {
      const wishes = then.map((c) => wishOf(c));
      const matches = matchWishes(viewOfCards(now), wishes);
      const got = matches.flatMap((m) => (m.device === null ? [] : m.device.address));
      expect(new Set(got).size).toBe(got.length);
      for (const [n, m] of matches.entries()) {
        if (m.device === null) continue;
        const was = then[n] as Card;
        const is = now.find((c) => c.address === m.device?.address) as Card;
        expect(is.ids).toBe(was.ids);
        const known = (['serial', 'mac'] as const).filter((k) => was.marks?.[k] != null && is.marks?.[k] != null);
        for (const k of known) expect(is.marks?.[k]).toBe(was.marks?.[k]);
        if (is.path !== was.path) expect(known.length).toBeGreaterThan(0);
        expect(m.by).toBe(is.path === was.path ? 'path' : 'number');
      }
    }),
    { numRuns: 2000 },
  );
});

test('addresses decide nothing: the same cards in the same slots, renumbered, are found in full', () => {
  fc.assert(
    fc.property(aHost, fc.shuffledSubarray(ADDRESSES, { minLength: 4 }), (then, addresses) => {
      const now = then.map((c, n) => ({ ...c, address: addresses[n] as string }));
      const matches = matchWishes(
        viewOfCards(now),
        then.map((c) => wishOf(c)),
      );
      expect(matches.map((m) => m.device?.address)).toEqual(now.map((c) => c.address));
    }),
  );
});
