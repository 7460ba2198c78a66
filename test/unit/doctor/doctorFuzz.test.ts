/**
 * Any file of a host may hold anything: `doctor` and `group why` answer, or refuse by an error of ours, and never
 * change a thing.
 */
import { lstatSync, readdirSync } from 'node:fs';
import { join, relative } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { diagnose } from '../../../src/actions/doctor.ts';
import { explainDevice } from '../../../src/actions/groupWhy.ts';
import { loadNative } from '../../../src/addon/load.ts';
import { HostdevError } from '../../../src/errors.ts';
import { Host } from '../../../src/host/host.ts';
import { configBytes } from '../../mock/config.ts';
import { StaticHost } from '../../mock/tree.ts';

const GPU = '0000:01:00.0';

/** Boot loaders and makers of an initramfs whose files are read where they are in charge. */
const LOADERS: readonly Record<string, string>[] = [
  {},
  { 'etc/NIXOS': '', 'etc/nixos/a.nix': '{ boot.kernelParams = [ "quiet" ]; }\n' },
  { 'usr/sbin/u-boot-update': '', 'etc/default/u-boot': 'U_BOOT_PARAMETERS="quiet"\n' },
  { 'boot/extlinux/extlinux.conf': 'label l\n  append quiet\n' },
  { 'boot/firmware/cmdline.txt': 'quiet\n', 'var/lib/juju/x': '' },
  { 'etc/update-extlinux.conf': 'default_kernel_opts="quiet"\n', 'etc/mkinitfs/mkinitfs.conf': '' },
  { 'etc/os-release': 'ID=arch\n', 'etc/mkinitcpio.conf': 'MODULES=()\n', 'etc/mkinitcpio.d/a.preset': 'a_uki=x\n' },
  { 'etc/unraid-version': '', 'boot/config/go': 'echo > new_id\n', 'boot/syslinux/syslinux.cfg': 'append initrd=/x\n' },
];

const fresh = (loader: Record<string, string>): StaticHost =>
  new StaticHost({
    devices: [
      { address: '0000:00:01.0', ids: '8086:1901', class: '060400', group: 1, driver: 'pcieport' },
      {
        address: GPU,
        ids: '10de:2204',
        class: '030000',
        group: 1,
        driver: 'vfio-pci',
        vfio: true,
        override: 'vfio-pci\n',
      },
      { address: '0000:01:00.1', ids: '10de:1aef', class: '040300', group: 1, driver: 'snd_hda_intel', totalVfs: 4 },
    ],
    aliases: [
      'alias vfio_pci:v000010DEd*sv*sd*bc03sc*i* nvgrace_gpu_vfio_pci',
      'alias pci:v000010DEd*sv*sd*bc03sc*i* nouveau',
    ],
    net: { eth0: '0000:01:00.1' },
    files: {
      [`sys/bus/pci/devices/${GPU}/config`]: configBytes({ multifunction: true }),
      'sys/firmware/acpi/tables/DMAR': new Uint8Array(48).fill(1),
      'sys/class/iommu/dmar0/intel-iommu/ecap': 'f00f4a\n',
      'sys/kernel/security/lockdown': 'none [integrity]\n',
      'proc/interrupts': ' 24: 0 IR-PCI-MSI eth0\n',
      'proc/iomem': 'c0-cf : 0000:01:00.0\n  c0-c1 : BOOTFB\n',
      'proc/stat': 'btime 1700000000\n',
      'proc/9/comm': 'libvirtd\n',
      'proc/9/stat': `9 (libvirtd) S ${'0 '.repeat(18)}100 0\n`,
      'proc/9/status': 'CapEff:\t0000000000000000\n',
      'proc/9/limits': 'Max locked memory 8 8 bytes\n',
      'etc/default/grub': 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n',
      'etc/kernel/cmdline': 'quiet\n',
      'etc/modprobe.d/a.conf': 'blacklist nouveau\noptions vfio-pci ids=10de:2204\n',
      'etc/rc.local': 'echo x > /sys/bus/pci/drivers/vfio-pci/new_id\n',
      'etc/libvirt/hooks/qemu': '#!/bin/sh\n',
      'etc/libvirt/hooks/qemu.d/10-x.bak': 'no\n',
      'run/hostdev/bindings/x.json': '{}',
      ...loader,
    },
  });

const hosts: StaticHost[] = [];
afterAll(() => {
  for (const h of hosts) h.remove();
});

function filesOf(h: StaticHost): string[] {
  const found: string[] = [];
  const visit = (path: string): void => {
    const s = lstatSync(path);
    if (s.isDirectory()) for (const n of readdirSync(path)) visit(join(path, n));
    else found.push(relative(h.root, path));
  };
  visit(h.root);
  return found.sort();
}

const damage = fc.oneof(
  fc.record({ kind: fc.constant('bytes' as const), bytes: fc.uint8Array({ maxLength: 6000 }) }),
  fc.record({ kind: fc.constant('text' as const), bytes: fc.string({ maxLength: 300, unit: 'binary' }) }),
  fc.record({ kind: fc.constantFrom('folder' as const, 'gone' as const, 'loop' as const, 'out' as const) }),
);

test('one to four files of a host hold anything at all', async () => {
  const files = LOADERS.map((loader) => {
    const h = fresh(loader);
    hosts.push(h);
    return filesOf(h);
  });
  const program = { native: '/x', nodes: ['/x'], cli: '/x' };
  await fc.assert(
    fc.asyncProperty(
      fc.nat(LOADERS.length - 1),
      fc.array(fc.tuple(fc.nat(999), damage), { minLength: 1, maxLength: 4 }),
      async (loader, damages) => {
        const one = fresh(LOADERS[loader] ?? {});
        const all = files[loader] ?? [];
        try {
          for (const [i, d] of damages) {
            const name = all[i % all.length] ?? '';
            one.remove(name);
            try {
              if (d.kind === 'bytes' || d.kind === 'text') one.file(name, d.bytes);
              else if (d.kind === 'folder') one.folder(name);
              else if (d.kind === 'loop') one.link(name, name.slice(name.lastIndexOf('/') + 1));
              // Our own state is read by node's fs: it is root's alone, and nobody else can put a link there.
              else if (d.kind === 'out' && !name.startsWith('run/')) one.link(name, '/../../../../../../../etc/passwd');
            } catch {
              // A folder above it was made a file just now.
            }
          }
          const before = one.hash();
          const host = new Host(one.root, loadNative());
          const d = await diagnose(host, program);
          expect(JSON.stringify(d)).not.toContain('root:x:0');
          for (const word of [GPU, 'eth0', '0000:00:01.0']) {
            try {
              expect((await explainDevice(host, word)).why.causes).toBeInstanceOf(Array);
            } catch (e) {
              if (!(e instanceof HostdevError) || e.code === 'HOSTDEV_INTERNAL') throw e;
            }
          }
          expect(one.hash()).toBe(before);
        } finally {
          one.remove();
        }
      },
    ),
    { numRuns: 120, endOnFailure: true },
  );
});
