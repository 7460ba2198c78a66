/** What the tests do inside a machine: put hostdev there, write domains, look at drivers, make VFs. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { projectDir } from './image.ts';
import type { Result } from './link.ts';
import type { Machine } from './machine.ts';
import { quote } from './machine.ts';

/** Where `npm run package` leaves what globalSetup.ts has it build. */
export const packageFile = (version: string): string =>
  path.join(projectDir, `.cache/package/hostdev_${version}_amd64.deb`);

/** Installs the package in the machine, as an admin does; nodejs is there. */
export async function installHostdev(machine: Machine, version = '0.1.0'): Promise<void> {
  const file = packageFile(version);
  if (!existsSync(file)) throw new Error(`${file} is not there: run 'npm run package' in ${projectDir}`);
  await installDeb(machine, file);
}

/** Installs a .deb of this machine in that one. */
export async function installDeb(machine: Machine, file: string): Promise<void> {
  const { dir, base } = path.parse(file);
  await machine.pushTar(['-C', dir, base], '/root/packages');
  await machine.ok(`dpkg -i ${quote(`/root/packages/${base}`)} 2>&1`, { timeoutMs: 300_000 });
}

/** A host device of a domain; `unassigned` leaves it without an address in the guest (for a group's other members). */
export interface HostdevXml {
  address: string;
  managed: boolean;
  model?: string;
  unassigned?: boolean;
}

/** An NVMe controller given to QEMU's own driver, as a disk. */
interface NvmeDiskXml {
  address: string;
  managed: boolean;
  namespace?: number;
}

/** A VF given as a network interface. */
interface InterfaceXml {
  address: string;
  managed: boolean;
  mac?: string;
}

export interface DomainXml {
  name: string;
  uuid?: string;
  hostdevs?: readonly HostdevXml[];
  nvmeDisks?: readonly NvmeDiskXml[];
  interfaces?: readonly InterfaceXml[];
  /** The content of <metadata>. */
  metadata?: string;
  memoryMiB?: number;
  /** A Linux that it boots, with its console in a file; else it has no system at all. */
  linux?: { kernel: string; initrd: string; cmdline: string; console: string };
}

/** A PCI address as libvirt's XML wants it. */
export function addressXml(address: string, attributes = ''): string {
  const match = /^([0-9a-f]{4,}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$/i.exec(address);
  if (!match) throw new Error(`no PCI address: ${address}`);
  const [, domain, bus, slot, fn] = match;
  return `<address${attributes} domain='0x${domain}' bus='0x${bus}' slot='0x${slot}' function='0x${fn}'/>`;
}

const managedXml = (managed: boolean) => `managed='${managed ? 'yes' : 'no'}'`;

/** A <hostdev>, as attach-device takes it too. */
export function hostdevXml({ address, managed, model, unassigned }: HostdevXml): string {
  return (
    `<hostdev mode='subsystem' type='pci' ${managedXml(managed)}>${model ? `<driver model='${model}'/>` : ''}` +
    `<source>${addressXml(address)}</source>${unassigned ? "<address type='unassigned'/>" : ''}</hostdev>`
  );
}

/** An <interface type='hostdev'>. */
function interfaceXml({ address, managed, mac }: InterfaceXml): string {
  return (
    `<interface type='hostdev' ${managedXml(managed)}>${mac ? `<mac address='${mac}'/>` : ''}` +
    `<source>${addressXml(address, " type='pci'")}</source></interface>`
  );
}

/** A <disk type='nvme'>. */
function nvmeDiskXml({ address, managed, namespace }: NvmeDiskXml, index = 0): string {
  const target = `vd${String.fromCharCode('a'.charCodeAt(0) + index)}`;
  return (
    `<disk type='nvme' device='disk'><driver name='qemu' type='raw'/>` +
    `<source type='pci' ${managedXml(managed)} namespace='${namespace ?? 1}'>${addressXml(address)}</source>` +
    `<target dev='${target}' bus='virtio'/></disk>`
  );
}

/**
 * A domain without an operating system, small enough for TCG inside TCG. Hot unplug needs the -global: with ACPI
 * hot plug nobody in the guest answers, libvirt says the device is detached, and it stays.
 */
export function domainXml(domain: DomainXml): string {
  const { hostdevs = [], nvmeDisks = [], interfaces = [] } = domain;
  const ports = hostdevs.length + nvmeDisks.length + interfaces.length + 4;
  return `<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
<name>${domain.name}</name>${domain.uuid ? `<uuid>${domain.uuid}</uuid>` : ''}
${domain.metadata ? `<metadata>${domain.metadata}</metadata>` : ''}
<memory unit='MiB'>${domain.memoryMiB ?? 64}</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type>${domain.linux ? `<kernel>${domain.linux.kernel}</kernel><initrd>${domain.linux.initrd}</initrd><cmdline>${domain.linux.cmdline}</cmdline>` : ''}</os><features><acpi/></features>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<controller type='usb' model='none'/><controller type='pci' index='0' model='pcie-root'/>
${Array.from({ length: ports }, (_, i) => `<controller type='pci' index='${i + 1}' model='pcie-root-port'/>`).join('\n')}
${[...nvmeDisks.map(nvmeDiskXml), ...interfaces.map(interfaceXml), ...hostdevs.map(hostdevXml)].join('\n')}
${domain.linux ? `<serial type='file'><source path='${domain.linux.console}'/></serial>` : ''}<memballoon model='none'/><watchdog model='itco' action='none'/><audio id='1' type='none'/><video><model type='none'/></video>
</devices>
<qemu:commandline><qemu:arg value='-global'/><qemu:arg value='ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off'/></qemu:commandline>
</domain>
`;
}

/** Writes and defines a domain. */
export async function defineDomain(machine: Machine, domain: DomainXml): Promise<void> {
  const file = `/tmp/${domain.name}.xml`;
  await machine.write(file, domainXml(domain));
  await machine.ok(`virsh define ${quote(file)}`);
}

export function virsh(
  machine: Machine,
  args: readonly string[],
  options: { timeoutMs?: number } = {},
): Promise<Result> {
  return machine.sh(`LC_ALL=C virsh ${args.map(quote).join(' ')}`, options);
}

const sysfs = (address: string) => `/sys/bus/pci/devices/${address}`;

/** The driver a device is bound to, or null. */
export async function driverOf(machine: Machine, address: string): Promise<string | null> {
  const dir = quote(sysfs(address));
  return (await machine.ok(`[ -e ${dir} ] && { readlink ${dir}/driver || :; }`)).split('/').at(-1) || null;
}

/** The device's driver_override, or null where none is set. */
export async function overrideOf(machine: Machine, address: string): Promise<string | null> {
  const text = await machine.ok(`cat ${quote(sysfs(address))}/driver_override`);
  return text === '(null)' || text === '' ? null : text;
}

/** The addresses in a device's IOMMU group, itself included, sorted; empty without a group. */
export async function groupOf(machine: Machine, address: string): Promise<string[]> {
  const out = await machine.ok(`ls ${quote(sysfs(address))}/iommu_group/devices 2>/dev/null || :`);
  return out.split('\n').filter(Boolean).sort();
}

/** Makes VFs (to 0 first, as the kernel demands) and gives their addresses in order, udev having settled. */
export async function createVfs(
  machine: Machine,
  pf: string,
  count: number,
  options: { autoprobe?: boolean } = {},
): Promise<string[]> {
  const out = await machine.ok(`cd ${quote(sysfs(pf))}
    udevadm settle
    [ "$(cat sriov_numvfs)" = 0 ] || echo 0 > sriov_numvfs
    echo ${options.autoprobe === false ? 0 : 1} > sriov_drivers_autoprobe
    echo ${count} > sriov_numvfs || exit
    udevadm settle
    for ((i = 0; i < ${count}; i++)); do basename "$(readlink virtfn$i)"; done`);
  return out.split('\n').filter(Boolean);
}

/**
 * Gives an NVMe VF (`index` counts as virtfnN does) two queues and one interrupt, sets its controller online and lets
 * the host's `nvme` driver bind it: until then that driver fails on it. The VF must exist and the PF be on `nvme`.
 * The VF's first namespace is the PF's, so Linux shows it as a second path of the PF's disk, not as a disk;
 * `namespace` (2 on 0000:22:00.0) attaches one to this VF alone, which becomes a disk of its own.
 * Gives the VF's address and its disks.
 */
export async function onlineNvmeVf(
  machine: Machine,
  pf: string,
  index: number,
  options: { namespace?: number } = {},
): Promise<{ address: string; disks: string[] }> {
  const out = await machine.ok(`set -e
    cd ${quote(sysfs(pf))}
    vf=$(basename "$(readlink -e virtfn${index})")
    pf=/dev/$(ls nvme)
    ask='."secondary-controllers"[] | select(."virtual-function-number" == ${index + 1})'
    id=$(nvme list-secondary $pf -o json | jq "$ask"'."secondary-controller-identifier"')
    state=$(nvme list-secondary $pf -o json | jq "$ask"'."secondary-controller-state"')
    if [ "$state" != 1 ]; then
      nvme virt-mgmt $pf -c $id -r 0 -a 8 -n 2
      nvme virt-mgmt $pf -c $id -r 1 -a 8 -n 1
      nvme virt-mgmt $pf -c $id -a 9
    fi >&2
    ${options.namespace ? `nvme attach-ns $pf -n ${options.namespace} -c $id >&2` : ''}
    # Without autoprobe a VF is never probed, unless it has a driver_override: drivers_probe then does nothing.
    autoprobe=$(cat sriov_drivers_autoprobe)
    echo 1 > sriov_drivers_autoprobe
    [ -e virtfn${index}/driver ] || echo $vf > /sys/bus/pci/drivers_probe
    echo $autoprobe > sriov_drivers_autoprobe
    [ "$(basename "$(readlink virtfn${index}/driver)")" = nvme ] || { echo "$vf is not on nvme" >&2; exit 1; }
    for ((i = 0; i < 100; i++)); do
      [ "$(cat virtfn${index}/nvme/nvme*/state)" = live ] && break
      sleep 0.1
    done
    udevadm settle
    echo $vf
    # nvme<disk>c<controller>n<id>, a path, hidden: the disk nvme<disk>n<id> is a virtual device.
    find -L virtfn${index}/nvme -maxdepth 2 -name 'nvme*c*n*' -printf '%f\\n' | sort`);
  const [address, ...paths] = out.split('\n');
  if (!address) throw new Error('onlineNvmeVf: no address came back');
  return { address, disks: paths.map((name) => name.replace(/c\d+/, '')) };
}
