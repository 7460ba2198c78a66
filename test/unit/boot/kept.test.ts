/** conf.d/90-kept.toml as text: what hostdev adds and takes out, and that it touches nothing else. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { changedText, tomlOf } from '../../../src/boot/kept.ts';
import { readWishes, type Wish } from '../../../src/boot/wishes.ts';
import { emptyConfig } from '../../../src/config/config.ts';
import { addTomlFiles } from '../../../src/config/hostdevToml.ts';
import { type Card, pfWishOf, wishOf } from '../../mock/wishes.ts';

const A: Card = { address: '0000:21:00.0', path: 'pci0000:20/04.0/00.0', ids: '8086:10c9', subsystem: '8086:a03c' };
const B: Card = {
  address: '0000:22:00.0',
  path: 'pci0000:20/05.0/00.0',
  ids: '144d:a808',
  marks: { nvme_serial: 'S4 "X"\\1' },
};
const FILE = 'kept.toml';

function parsed(text: string | null) {
  const config = emptyConfig('hostdev');
  addTomlFiles(config, [{ file: FILE, text: text ?? '' }]);
  const { all, findings } = readWishes(config);
  return { all, findings: [...config.findings, ...findings] };
}

const bare = ({ place: _, ...w }: Wish): unknown => w;

const aWish = fc
  .record({
    card: fc.record({
      slot: fc.integer({ min: 0, max: 31 }),
      serial: fc.constantFrom(null, '00-1b-21-ff-ff-3c-4d-5e'),
      mac: fc.constantFrom(null, '52:54:00:00:00:01'),
      // \x20-\x7e, as an identity has it.
      nvme: fc.option(fc.stringMatching(/^[!-~]([ -~]{0,10}[!-~])?$/), { nil: null }),
      subsystem: fc.constantFrom(undefined, '1af4:1100'),
    }),
    vf: fc.option(fc.integer({ min: 0, max: 200 }), { nil: null }),
    driver: fc.constantFrom('vfio', 'host', 'none', 'mlx5_vfio_pci', 'MTD PCI'),
    allow: fc.subarray(['network', 'disk', 'vfs'] as const),
    pf: fc.option(fc.record({ vfs: fc.integer({ min: 4, max: 64 }), for: fc.constantFrom('vfio', 'netdev') }), {
      nil: null,
    }),
    ranged: fc.boolean(),
  })
  .map(({ card, vf, driver, allow, pf, ranged }): Wish => {
    const slot = card.slot.toString(16).padStart(2, '0');
    const c: Card = {
      address: `0000:${slot}:00.0`,
      path: `pci0000:20/${slot}.0/00.0`,
      ids: '8086:10c9',
      ...(card.subsystem === undefined ? {} : { subsystem: card.subsystem }),
      marks: { serial: card.serial, mac: card.mac, nvme_serial: card.nvme },
    };
    const more = { allow: [...allow] };
    if (pf === null) return wishOf(c, { ...more, vf, driver, group: driver === 'vfio' });
    const ranges = ranged
      ? [
          { first: 0, last: 1, driver: 'host', vgpu_type: null },
          { first: 2, last: 2, driver: null, vgpu_type: 0 },
          { first: 3, last: 3, driver: null, vgpu_type: 592 },
        ]
      : [];
    return pfWishOf(c, pf.vfs, { ...more, for: pf.for as 'vfio' | 'netdev', ranges });
  });

test('a wish that is written is the wish that is read', () => {
  fc.assert(
    fc.property(aWish, (wish) => {
      const { all, findings } = parsed(tomlOf(wish));
      expect(findings).toEqual([]);
      expect(all.map(bare)).toEqual([bare(wish)]);
    }),
  );
});

const subject = (w: Wish): string => `${w.kind} ${w.identity.path} ${w.kind === 'device' ? w.vf : ''}`;
const COMMENTS = [
  '# mine\n',
  '\n',
  '# [[device]]\n',
  '[[allow]]\ndevice = "0000:01:00.0"\nguard = "disk"\ndomain = "*"\n',
  '[hook]\nunmanaged = "check" # [[pf]]\n',
];

test('in any file: what goes is gone, what stays is as it was, every other line is where it was', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(aWish, { selector: subject, maxLength: 5 }),
      fc.array(fc.constantFrom(0, 1, 2), { minLength: 12, maxLength: 12 }),
      fc.infiniteStream(fc.boolean()),
      (wishes, comments, goes) => {
        let hook = false;
        const parts = wishes.flatMap((w, n) => {
          const around = hook ? '' : (COMMENTS[comments[n] ?? 0] ?? '');
          hook = true;
          return [around, tomlOf(w), `# after ${n}\n`];
        });
        const before = parts.join('');
        const was = parsed(before).all;
        expect(was).toHaveLength(wishes.length);
        const gone = was.filter(() => goes.next().value);
        const after = changedText(before, gone, []);
        const is = parsed(after).all.map(bare);
        expect(is).toEqual(was.filter((w) => !gone.includes(w)).map(bare));
        for (const [n] of wishes.entries()) expect(after).toContain(`# after ${n}\n`);
        const others = (text: string): string[] => text.split('\n').filter((l) => l.startsWith('#'));
        expect(others(after ?? '')).toEqual(others(before));
      },
    ),
  );
});

describe('files', () => {
  test('the first wish makes it, the last one that goes takes it away', () => {
    const one = changedText('', [], [wishOf(A)]) ?? '';
    expect(one).toContain('You may edit this file');
    const [w] = parsed(one).all;
    expect(changedText(one, [w as Wish], [])).toBeNull();
    const two = changedText(one, [], [wishOf(B)]) ?? '';
    expect(parsed(two).all.map((x) => x.address)).toEqual([A.address, B.address]);
    expect(two.startsWith(one)).toBe(true);
    expect(changedText(two, parsed(two).all.slice(1), [])).toBe(one);
  });

  test("a person's comments stay, above the table and behind it; those in it go with it", () => {
    const text = `# top\n\n# my NIC\n[[device]] # here\n# inside\n${tomlOf(wishOf(A)).split('\n').slice(1).join('\n')}# behind\n`;
    const after = changedText(text, parsed(text).all, []);
    expect(after).toBe('# top\n\n# my NIC\n# behind\n');
  });

  test('a table with tables below it goes whole', () => {
    const text = `${tomlOf(pfWishOf(A, 8, { ranges: [{ first: 0, last: 3, driver: 'host', vgpu_type: null }] }))}\n${tomlOf(wishOf(B))}`;
    const after = changedText(
      text,
      parsed(text).all.filter((w) => w.kind === 'pf'),
      [],
    );
    expect(after).toBe(tomlOf(wishOf(B)));
  });

  test('values over several lines go with their table', () => {
    const text = `[[device]]\n${tomlOf(wishOf(A)).split('\n').slice(1).join('\n')}allow = [\n  "disk",\n  # why\n]\n# end\n`;
    expect(changedText(text, parsed(text).all, [])).toBe('# end\n');
  });

  test('a wish in an inline list is not taken out by halves', () => {
    const pairs = tomlOf(wishOf(A)).split('\n').slice(1, -1).join(', ');
    const text = `device = [{ ${pairs} }]\n`;
    expect(() => changedText(text, parsed(text).all, [])).toThrow(/no \[\[device\]\] table of its own/);
  });

  test('a file without a line end at its end', () => {
    expect(changedText('# mine', [], [wishOf(A)])).toBe(`# mine\n\n${tomlOf(wishOf(A))}`);
  });
});
