/**
 * A tree of 4,000 PCI functions on tmpfs, laid out as sysfs lays them out: 32 PFs with 124 VFs each, one IOMMU group a
 * function.
 */
import { mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const PFS = 32;
const VFS_EACH = 124;

/** Writes the tree below /dev/shm and returns its root. The caller removes it. */
export function makeTree(): string {
  const root = mkdtempSync('/dev/shm/hostdev-bench-');
  const devices = join(root, 'sys/bus/pci/devices');
  mkdirSync(devices, { recursive: true });
  for (const d of ['igb', 'igbvf']) mkdirSync(join(root, 'sys/bus/pci/drivers', d), { recursive: true });
  let group = 0;
  for (let p = 0; p < PFS; p += 1) {
    const bus = (0x20 + p * 2).toString(16).padStart(2, '0');
    const pf = `0000:${bus}:00.0`;
    writeDevice(root, pf, group, 'igb', '10C9', p % 2, null);
    group += 1;
    for (let v = 1; v <= VFS_EACH; v += 1) {
      const vf = `0000:${bus}:${(v >> 3).toString(16).padStart(2, '0')}.${v & 7}`;
      writeDevice(root, vf, group, 'igbvf', '10CA', p % 2, pf);
      group += 1;
    }
  }
  return root;
}

function writeDevice(
  root: string,
  address: string,
  group: number,
  driver: string,
  id: string,
  numa: number,
  pf: string | null,
): void {
  const at = join(root, 'sys/devices/pci0000:00', address);
  mkdirSync(at, { recursive: true });
  symlinkSync(`../../../devices/pci0000:00/${address}`, join(root, 'sys/bus/pci/devices', address));
  const modalias = `pci:v00008086d0000${id}sv00008086sd0000A03Cbc02sc00i00`;
  const files: Record<string, string> = {
    vendor: '0x8086\n',
    device: `0x${id.toLowerCase()}\n`,
    class: '0x020000\n',
    subsystem_vendor: '0x8086\n',
    subsystem_device: '0xa03c\n',
    revision: '0x01\n',
    irq: '0\n',
    resource: '0x0000000000000000 0x0000000000000000 0x0000000000000000\n'.repeat(7),
    numa_node: `${numa}\n`,
    modalias: `${modalias}\n`,
    driver_override: '(null)\n',
    uevent: `DRIVER=${driver}\nPCI_CLASS=20000\nPCI_ID=8086:${id}\nPCI_SUBSYS_ID=8086:A03C\nPCI_SLOT_NAME=${address}\nMODALIAS=${modalias}\n`,
    ...(pf === null ? { sriov_totalvfs: `${VFS_EACH}\n`, sriov_numvfs: `${VFS_EACH}\n` } : {}),
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(at, name), text);
  writeFileSync(
    join(at, 'config'),
    Buffer.from([0x86, 0x80, Number.parseInt(id.slice(2), 16), 0x10, ...Array<number>(60).fill(0)]),
  );
  symlinkSync(`../../../bus/pci/drivers/${driver}`, join(at, 'driver'));
  symlinkSync(`../../../kernel/iommu_groups/${group}`, join(at, 'iommu_group'));
  if (pf !== null) symlinkSync(`../${pf}`, join(at, 'physfn'));
  const g = join(root, 'sys/kernel/iommu_groups', `${group}`);
  mkdirSync(join(g, 'devices'), { recursive: true });
  writeFileSync(join(g, 'type'), 'DMA-FQ\n');
  symlinkSync(`../../../../devices/pci0000:00/${address}`, join(g, 'devices', address));
}
