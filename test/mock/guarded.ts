/**
 * Hosts on which a device is used for something, and what every guard must say of that: refused by its name, lifted by
 * its own allowance and by no other.
 */
import { afterEach, describe, expect, test } from 'vitest';
import { loadNative } from '../../src/addon/load.ts';
import type { Holder, KernelWriter } from '../../src/addon/native.ts';
import { type Asker, byName, GUARDS, type Guard, judge, type Usage } from '../../src/binding/guards.ts';
import { readUsages } from '../../src/binding/usage.ts';
import { Host } from '../../src/host/host.ts';
import { type PciDevice, scanInventory } from '../../src/pci/inventory.ts';
import { Deadline } from '../../src/store/locks.ts';
import { StaticHost, type Tree } from './tree.ts';
import { texts } from './warnings.ts';

export const DEV = '0000:05:00.0';
export const AT = `sys/devices/pci0000:05/${DEV}`;
export const GUARD_NAMES = Object.keys(GUARDS) as Guard[];

/** What the host of a case has beside the device: `held` nodes by process, `claimed` disks. */
export type Case = Partial<Tree> & {
  /** Class and driver of the device, and what else it shows. */
  device?: Partial<Tree['devices'][number]>;
  held?: Holder[];
  /** There are no nodes to ask. */
  noNodes?: boolean;
  claimed?: string[];
  /** No driver has it. */
  driverless?: boolean;
};

export let hosts: StaticHost[] = [];
afterEach(() => {
  for (const h of hosts) h.remove();
  hosts = [];
});

export const ROUTE = 'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n';
/** A line of proc/net/route; numbers as the kernel prints them. */
export const route = (name: string, destination: string, mask: string): string =>
  `${[name, destination, '00000000', '0001', '0', '0', '0', mask, '0', '0', '0'].join('\t')}\n`;
export const DEFAULT = '00000000';
export const NET = ['0001A8C0', '00FFFFFF'] as const; // 192.168.1.0/24
export const SWAPS = 'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n';
export const mount = (number: string, point: string, source: string, type = 'ext4'): string =>
  `29 1 ${number} / ${point} rw,relatime shared:1 - ${type} ${source} rw\n`;

export const NIC = { class: '020000', ids: '8086:10d3', driver: 'e1000e' };
export const NVME = { class: '010802', ids: '1b36:0010', driver: 'nvme' };
export const GPU = { class: '030000', ids: '1002:67df', driver: 'amdgpu' };

export async function look(c: Case): Promise<{ host: Host; device: PciDevice; usage: Usage }> {
  const { device, held = [], claimed = [], driverless = false, ...tree } = c;
  const { driver = 'some', ...own } = device ?? {};
  const root = new StaticHost({
    ...tree,
    devices: [
      { address: DEV, ids: '1234:5678', class: 'ff0000', group: 5, ...own, ...(driverless ? {} : { driver }) },
      ...(tree.devices ?? []),
    ],
  });
  hosts.push(root);
  const native = loadNative();
  const host = new Host(root.root, {
    ...native,
    kind: 'addon',
    holders: (_root, nodes) => ({ holders: held.filter((h) => nodes.includes(h.path)), unreadable: 0 }),
  });
  const writer = {
    claimed: async (path: string) => {
      if (c.noNodes) throw Object.assign(new Error('ENOENT'), { code: 'ENOENT', errno: -2 });
      return claimed.includes(path);
    },
  } as Partial<KernelWriter> as KernelWriter;
  const found = scanInventory(host).byAddress.get(DEV);
  if (found === undefined) throw new Error(`${DEV} is not in the tree`);
  const usages = await readUsages({ host, writer, deadline: new Deadline(5000) }, [found]);
  return { host, device: found, usage: usages.get(DEV) ?? { uses: [], unmeasured: ['nothing at all'] } };
}

export const verdict = (
  { device, usage }: { device: PciDevice; usage: Usage },
  allowed: Iterable<Guard>,
  asker: Asker = 'bind',
) => judge({ device, usage, target: null, denylistOff: false, real: true, asker }, byName(new Set(allowed)));

export const held = (path: string, command = 'sleep'): Holder => ({ pid: 812, command, path });

/** A stack on an NVMe drive: partition 3 with the mount, dm or md device `top` on it. */
export const stacked = (top: string, how: 'holders' | 'slaves', more: Record<string, string> = {}): Case => ({
  device: NVME,
  block: { nvme0n1: DEV, nvme0n1p3: DEV, [top]: null },
  files: {
    'sys/class/block/nvme0n1/dev': '259:0\n',
    'sys/class/block/nvme0n1p3/dev': '259:3\n',
    [`sys/class/block/${top}/dev`]: '253:0\n',
    'proc/self/mountinfo': mount('253:0', '/srv', '/dev/whatever'),
    ...more,
  },
  links:
    how === 'holders'
      ? { [`${AT}/block/nvme0n1p3/holders/${top}`]: `../../../../../../virtual/block/${top}` }
      : { [`sys/devices/virtual/block/${top}/slaves/nvme0n1p3`]: `../../../../../pci0000:05/${DEV}/block/nvme0n1p3` },
});

/** An interface eth0 of the function, and others. */
export const nic = (files: Record<string, string>, more: Partial<Case> = {}): Case => ({
  device: NIC,
  net: { eth0: DEV, ...more.net },
  files,
  ...(more.links ? { links: more.links } : {}),
});

export type Row = [guard: Guard, what: string, c: Case, reason: RegExp, vital?: boolean];

const ALWAYS: Asker[] = ['bind', 'unbind', 'hook'];

/** Tests of rows that a guard refuses; `vital` ones also where libvirt would do it anyway. */
export function refused(rows: readonly Row[]): void {
  describe.each(rows)('%s: %s', (guard, _what, c, reason, vital = false) => {
    test('refused by name; lifted by its own allowance, and by no other; for libvirt only what is vital', async () => {
      const seen = await look(c);
      const names = (r: ReturnType<typeof verdict>): Guard[] => [...new Set(r.refusals.map((x) => x.guard))];
      const plain = verdict(seen, []);
      // Holding its node may be one of several reasons; each has its own name.
      expect(
        plain.refusals
          .filter((r) => r.guard === guard)
          .map((r) => r.reason)
          .join('\n'),
      ).toMatch(new RegExp(reason.source, 'm'));
      expect(plain.refusals.every((r) => r.address === DEV)).toBe(true);
      for (const asker of ALWAYS) {
        expect(names(verdict(seen, [], asker)), asker).toContain(guard);
        expect(names(verdict(seen, [guard], asker)), asker).not.toContain(guard);
        expect(
          names(
            verdict(
              seen,
              GUARD_NAMES.filter((g) => g !== guard),
              asker,
            ),
          ),
          asker,
        ).toEqual([guard]);
      }
      expect(texts(verdict(seen, [guard]).warnings).join('\n')).toContain(`(allowed: ${guard})`);
      const managed = verdict(seen, [], 'managed');
      expect(names(managed).includes(guard)).toBe(vital);
      expect([...managed.refusals.map((r) => r.reason), ...texts(managed.warnings)].join('\n')).toMatch(
        new RegExp(reason.source.replace(/[$^]/g, '')),
      );
    });
  });
}

/** Tests of hosts on which nothing may be found. */
export function freeOf(cases: readonly [string, Case][]): void {
  test.each(cases)('free: %s', async (_what, c) => {
    const { usage } = await look({ ...c, files: { 'proc/iomem': '', ...c.files } });
    expect(usage.uses).toEqual([]);
  });
}
