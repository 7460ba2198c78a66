/**
 * The judgement itself: VFs in use, what was not measured, hostile content, and that an allowance lifts its own guard
 * only.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { KernelWriter } from '../../../src/addon/native.ts';
import { type Asker, byName, type Guard, isAllowable, judge } from '../../../src/binding/guards.ts';
import { readUsages } from '../../../src/binding/usage.ts';
import { Host } from '../../../src/host/host.ts';
import type { PciDevice } from '../../../src/pci/inventory.ts';
import { Deadline } from '../../../src/store/locks.ts';
import {
  AT,
  type Case,
  DEV,
  GPU,
  GUARD_NAMES,
  held,
  hosts,
  look,
  mount,
  NET,
  NIC,
  NVME,
  ROUTE,
  route,
  SWAPS,
  verdict,
} from '../../mock/guarded.ts';

describe('a PF with VFs in use', () => {
  const pf = (vf: Case): Case => ({
    device: { ...NIC, totalVfs: 2, attributes: { sriov_numvfs: '1\n' } },
    devices: [{ address: '0000:05:10.0', ids: '8086:10ca', physfn: DEV, driver: 'igbvf', group: 6 }],
    ...vf,
    files: { [`${AT}/net/.keep`]: '', ...vf.files },
    links: { [`${AT}/virtfn0`]: '../0000:05:10.0', ...vf.links },
  });
  test.each<[string, Case, RegExp]>([
    [
      'by the host',
      pf({ net: { eth5: '0000:05:10.0' }, files: { 'proc/net/route': ROUTE + route('eth5', ...NET) } }),
      /0000:05:10\.0: eth5 has an address/,
    ],
    [
      'by a guest that the books know',
      pf({
        files: {
          'run/hostdev/bindings/0000:05:10.0.json': JSON.stringify({
            schema: 1,
            address: '0000:05:10.0',
            group: 6,
            owner: 'domain:624392bd-9784-4e20-8b29-1e85f123c67d',
            claims: [{ owner: 'domain:624392bd-9784-4e20-8b29-1e85f123c67d', name: 'web', managed: false }],
            before: { driver: 'igbvf', override: null },
            after: { driver: 'vfio-pci', override: 'vfio-pci' },
            since: '2026-11-21T00:00:00.000Z',
            note: null,
          }),
        },
      }),
      /belongs to web/,
    ],
    [
      'by a process',
      pf({
        devices: [{ address: '0000:05:10.0', ids: '8086:10ca', physfn: DEV, driver: 'vfio-pci', group: 6 }],
        held: [held('/dev/vfio/6', 'qemu')],
      }),
      /process 812 \(qemu\)/,
    ],
  ])('%s: refused, and no allowance lifts it', async (_how, c, reason) => {
    const seen = await look(c);
    expect(verdict(seen, GUARD_NAMES).refusals).toEqual([
      { guard: 'vfs', address: DEV, reason: expect.stringMatching(reason), firm: true, asker: 'bind' },
    ]);
  });
});

describe('not measured', () => {
  test.each<[string, Case, string]>([
    [
      'no mountinfo',
      { device: NVME, block: { sda: DEV }, files: { 'proc/self/mountinfo': '' } },
      'proc/self/mountinfo',
    ],
    ['no swaps', { device: NVME, block: { sda: DEV } }, 'proc/swaps'],
    ['no routes', { device: NIC, net: { eth0: DEV } }, 'proc/net/route'],
    ['no iomem under a display', { device: GPU }, 'proc/iomem'],
  ])('%s: refused on the machine itself, by that name only', async (_what, c, path) => {
    const { host, device } = await look(c);
    hosts.at(-1)?.remove(path);
    const writer = { claimed: async () => false } as Partial<KernelWriter> as KernelWriter;
    const usage = (await readUsages({ host, writer, deadline: new Deadline(1000) }, [device])).get(DEV);
    if (usage === undefined) throw new Error('no usage');
    const j = { device, usage, target: null, denylistOff: false, asker: 'bind' } as const;
    const refusals = judge(
      { ...j, real: true },
      byName(new Set(GUARD_NAMES.filter((g) => g !== 'not-measured'))),
    ).refusals;
    expect(refusals).toMatchObject([{ guard: 'not-measured', reason: expect.stringContaining(path) }]);
    expect(judge({ ...j, real: true }, byName(new Set(['not-measured']))).refusals).toEqual([]);
    expect(judge({ ...j, real: false }, () => false).refusals).toEqual([]);
    expect(judge({ ...j, real: true, asker: 'managed' }, () => false).refusals).toEqual([]);
  });

  test('a NIC whose driver shows no interface; a network namespace has it', async () => {
    const { usage } = await look({ device: NIC });
    expect(usage).toMatchObject({ uses: [], unmeasured: [expect.stringContaining('none is to be seen')] });
    const gone = await look({ device: NIC, files: { [`${AT}/net/x/y`]: '' } });
    hosts.at(-1)?.remove(`${AT}/net/x`);
    const writer = { claimed: async () => false } as Partial<KernelWriter> as KernelWriter;
    const usages = await readUsages({ host: gone.host, writer, deadline: new Deadline(1000) }, [gone.device]);
    expect(usages.get(DEV)?.uses).toEqual([
      { guard: 'network', reason: expect.stringContaining('another network namespace'), vital: true },
    ]);
  });

  test('a disk whose claim cannot be asked for, processes that may not be looked into', async () => {
    const { host, device } = await look({ device: NVME, block: { sda: DEV } });
    const writer = {
      claimed: async () => {
        throw Object.assign(new Error("EACCES: permission denied, open 'dev/sda'"), { code: 'EACCES', errno: -13 });
      },
    } as Partial<KernelWriter> as KernelWriter;
    const blind = new Host(host.root, { ...host.native, holders: () => ({ holders: [], unreadable: 3 }) });
    const usage = (await readUsages({ host: blind, writer, deadline: new Deadline(1000) }, [device])).get(DEV);
    expect(usage?.unmeasured).toEqual(['the open files of 3 processes', expect.stringContaining('EACCES')]);
  });
});

describe('hostile content', () => {
  const NASTY = [
    '../../../../etc/passwd',
    '/',
    '..',
    '\u001b[2J',
    'a'.repeat(5000),
    '\n\n',
    'nvme0n1\\040',
    '%s%n',
    '0:0',
    '\u0000',
    '$(reboot)',
  ];

  test('of mountinfo, swaps, routes and attributes: no fault, nothing that moves a terminal', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(fc.constantFrom(...NASTY), fc.string({ maxLength: 40 })), { maxLength: 12 }),
        async (words) => {
          const line = words.join(' ');
          const table = words.map((w) => `${w}\t${line}\n`).join('');
          const { usage } = await look({
            device: { ...NVME, attributes: { boot_vga: line } },
            block: { sda: DEV, sda1: DEV, loop0: null },
            net: { eth0: DEV },
            files: {
              'proc/self/mountinfo': `${table}${mount('8:1', line, line)}`,
              'proc/swaps': SWAPS + table,
              'proc/net/route': ROUTE + table,
              'proc/net/fib_trie': table,
              'proc/net/if_inet6': table,
              'proc/net/ipv6_route': table,
              'proc/iomem': table,
              'sys/class/block/sda1/dev': '8:1\n',
              'sys/class/block/loop0/loop/backing_file': line,
              'sys/class/block/sda/dm/name': line,
            },
          });
          for (const u of usage.uses) {
            expect(u.reason).toMatch(/^[\x20-\x7e…]+$/);
            expect(u.reason.length).toBeLessThan(600);
          }
          hosts.at(-1)?.remove();
        },
      ),
      { numRuns: 40 },
    );
  });

  test('rings of holders and of interfaces come to an end', async () => {
    const { usage } = await look({
      device: NVME,
      block: { sda: DEV, 'dm-0': null, 'dm-1': null },
      net: { eth0: DEV, br0: null, br1: null },
      links: {
        [`${AT}/block/sda/holders/dm-0`]: 'x',
        'sys/devices/virtual/block/dm-0/holders/dm-1': 'x',
        'sys/devices/virtual/block/dm-1/holders/dm-0': 'x',
        'sys/devices/virtual/block/dm-1/holders/sda': 'x',
        [`${AT}/net/eth0/master`]: 'x/br0',
        'sys/devices/virtual/net/br0/master': 'x/br1',
        'sys/devices/virtual/net/br1/master': 'x/br0',
      },
    });
    expect(usage.uses.map((u) => u.reason)).toEqual([
      'dm-0 is built on sda',
      'dm-1 is built on dm-0',
      'eth0 is part of br0',
      'br0 is part of br1',
    ]);
  });

  test('a table that is too large is not measured', async () => {
    const { usage } = await look({
      device: NVME,
      block: { sda: DEV },
      files: { 'proc/self/mountinfo': 'x'.repeat(5 * 1024 * 1024) },
    });
    expect(usage.unmeasured).toEqual([expect.stringContaining('EFBIG')]);
  });
});

test('allowing guards lifts these and no others, whatever was found', () => {
  const guard = fc.constantFrom(...GUARD_NAMES);
  const use = fc.record({ guard, reason: fc.string(), vital: fc.boolean(), firm: fc.boolean() });
  const asker = fc.constantFrom<Asker>('bind', 'unbind', 'hook', 'managed');
  const device = { address: DEV, class: 'ff0000', vendor_id: '1234', product_id: '5678' } as PciDevice;
  fc.assert(
    fc.property(fc.array(use), fc.uniqueArray(guard), asker, (uses, allowed, on) => {
      const j = { device, usage: { uses, unmeasured: [] }, target: null, denylistOff: false, real: true, asker: on };
      const all = judge(j, () => false).refusals;
      const lifted = new Set<Guard>(allowed.filter(isAllowable));
      const firm = uses.filter((u) => u.firm).map((u) => u.reason);
      const left = judge(j, byName(new Set(allowed))).refusals;
      expect(left.filter((r) => !lifted.has(r.guard))).toEqual(all.filter((r) => !lifted.has(r.guard)));
      expect(left.filter((r) => lifted.has(r.guard)).every((r) => firm.includes(r.reason))).toBe(true);
    }),
  );
});
