/** The first half of `npm start`: what this machine has, and which package brings what is missing. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { loadNative } from '../../src/addon/load.ts';
import { Host } from '../../src/host/host.ts';
import { iommuState } from '../../src/host/iommu.ts';
import { scanInventory } from '../../src/pci/inventory.ts';

/** A program or file that one of the storeys of tests, or a real host, needs. */
type Need = { what: string; there: () => boolean; from: string; for: string };

const onPath = (name: string): boolean =>
  ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'].some((d) =>
    existsSync(`${d}/${name}`),
  );

const NEEDS: Need[] = [
  {
    what: 'C++ compiler',
    there: () => onPath('g++') || onPath('clang++'),
    from: 'g++',
    for: 'building the native part',
  },
  {
    what: 'libvirt',
    there: () => onPath('libvirtd') || onPath('virtqemud'),
    from: 'libvirt-daemon-system',
    for: 'guests on this host',
  },
  {
    what: 'QEMU',
    there: () => onPath('qemu-system-x86_64'),
    from: 'qemu-system-x86',
    for: 'guests on this host (the VM suite brings its own)',
  },
  { what: 'mmdebstrap', there: () => onPath('mmdebstrap'), from: 'mmdebstrap', for: 'the image of npm run test:vm' },
  {
    what: 'FUSE 3',
    there: () => existsSync('/dev/fuse') && onPath('fusermount3'),
    from: 'fuse3 libfuse3-dev',
    for: 'the simulated kernel of later tests',
  },
  {
    what: 'clang-tidy',
    there: () => onPath('clang-tidy') && onPath('clang-format'),
    from: 'clang-tidy clang-format',
    for: 'npm run lint:native',
  },
];

/** Prints what this host has and whether it is ready to hand devices to guests. */
export function printReadiness(): void {
  const native = loadNative();
  const host = new Host('/', native);
  const { devices } = scanInventory(host);
  const iommu = iommuState(host);
  const groups = existsSync('/sys/kernel/iommu_groups') ? readdirSync('/sys/kernel/iommu_groups').length : 0;
  const vfio =
    spawnSync('modprobe', ['-n', '-q', 'vfio-pci']).status === 0 || existsSync('/sys/bus/pci/drivers/vfio-pci');
  const line = (ok: boolean, what: string, text: string): void =>
    void process.stdout.write(`  ${ok ? 'ok  ' : '--  '}${what.padEnd(14)}${text}\n`);
  process.stdout.write('This host\n');
  line(
    native.kind === 'addon',
    'native part',
    native.kind === 'addon' ? 'hostdev.node is built' : 'missing: only reading commands work',
  );
  line(devices.length > 0, 'PCI devices', `${devices.length}`);
  line(
    iommu.on,
    'IOMMU',
    iommu.on ? `${groups} groups (${iommu.units.join(', ') || 'no unit named'})` : (iommu.reason ?? ''),
  );
  line(vfio, 'vfio-pci', vfio ? 'there' : 'the running kernel has no such module');
  for (const n of NEEDS)
    line(n.there(), n.what, n.there() ? 'there' : `missing, for ${n.for}: apt-get install ${n.from}`);
  const ready = iommu.on && vfio && native.kind === 'addon';
  process.stdout.write(
    ready
      ? 'Ready to hand devices to guests.\n'
      : 'Not ready to hand devices to guests; the story below needs none of it.\n',
  );
}
