/**
 * What the stage in the initramfs costs: own CPU time of `hostdev-native boot`, child and all, over a table of 1,000
 * functions among 4,000, on a tree that shows each as bound already, so that only looking is measured. In a chroot, for
 * in the initramfs the root is its own; so it is run as root.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { tableText } from '../../src/boot/table.ts';
import { makeTree } from './tree.ts';

const DEVICES = 1000;
const RUNS = Number(process.env.HOSTDEV_BENCH_RUNS ?? 31);

/** Markdown of the section. */
export function benchEarly(): string {
  const root = makeTree();
  try {
    const devices = join(root, 'sys/bus/pci/devices');
    const text = (address: string, file: string): string => readFileSync(join(devices, address, file), 'utf8').trim();
    const hex = (address: string, file: string): string => text(address, file).replace(/^0x/, '');
    const table = readdirSync(devices)
      .slice(0, DEVICES)
      .map((address, group) => ({
        path: `pci0000:00/${address.slice(8)}`,
        address,
        vendor_id: hex(address, 'vendor'),
        product_id: hex(address, 'device'),
        subsystem_vendor_id: hex(address, 'subsystem_vendor'),
        subsystem_device_id: hex(address, 'subsystem_device'),
        class: hex(address, 'class'),
        serial: null,
        group,
        driver:
          readlinkSync(join(devices, address, 'driver'))
            .split('/')
            .at(-1) ?? '',
        module: null,
        allow: [],
      }));
    // The tree has 32 functions of each devfn on one root bus: the path tells one of them.
    const own = table.filter((d, n) => table.findIndex((o) => o.path === d.path) === n);
    for (const folder of ['var/lib/hostdev', 'proc', 'dev']) mkdirSync(join(root, folder), { recursive: true });
    writeFileSync(join(root, 'proc/cmdline'), 'quiet\n');
    writeFileSync(join(root, 'dev/kmsg'), '');
    const repeated = Array.from({ length: DEVICES }, (_, n) => ({
      ...(own[n % own.length] as (typeof own)[number]),
      group: n,
    }));
    writeFileSync(
      join(root, 'var/lib/hostdev/boot.table'),
      tableText({ root: '', resume: '', vital: [], displays: [], devices: repeated }),
    );
    copyFileSync(
      join(process.env.HOSTDEV_NATIVE_DIR ?? 'build/Release', 'hostdev-native'),
      join(root, 'hostdev-native'),
    );
    const ms = Array.from({ length: RUNS }, () => {
      rmSync(join(root, 'run'), { recursive: true, force: true });
      // The last line of times(1p) is that of the children: user and system time.
      const said = execFileSync('sh', ['-c', 'chroot "$0" /hostdev-native boot; times', root], { encoding: 'utf8' });
      const last = said.trim().split('\n').at(-1) ?? '';
      return [...last.matchAll(/(\d+)m([\d.]+)s/g)].reduce(
        (sum, [, m, s]) => sum + Number(m) * 60_000 + Number(s) * 1000,
        0,
      );
    }).sort((a, b) => a - b);
    const at = (share: number): string => `${Math.round(ms[Math.floor((ms.length - 1) * share)] ?? 0)}`;
    return `| hostdev-native boot, ${DEVICES} functions in the table, 4,000 on the host | least | median | most |\n| --- | --- | --- | --- |\n| own CPU time, ms | ${at(0)} | ${at(0.5)} | ${at(1)} |\n`;
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}
