/** The options that say how a domain takes a device, as they were typed: of `domain plan` and of `attach`. */
import { type AskedNic, readNic } from '../actions/domainNic.ts';
import type { TakeRequest } from '../actions/domainTake.ts';
import { HostdevError } from '../errors.ts';
import { quote } from '../text/safe.ts';
import type { Invocation } from './command.ts';

const usage = (message: string, hint: string): HostdevError => new HostdevError('HOSTDEV_USAGE', message, { hint });

/** Raises HOSTDEV_USAGE for what is no such value. */
export const takeOptions = (own: Invocation['own']): Omit<TakeRequest, 'add'> => ({
  managed: readManaged(own.managed),
  model: readModel(own.driver),
  rom: readRom(own.rom),
  boot: readBoot(own.boot),
  nic: readNicWords(own),
  unassignedPeers: own['unassigned-peers'] === true,
  namespace: readNamespace(own),
  oneSlot: own['one-slot'] === true,
});

type Value = string | boolean | undefined;

/** An option's text; undefined where it was not given. */
export const textOf = (value: Value): string | undefined => (typeof value === 'string' ? value : undefined);

function readManaged(value: Value): boolean | null {
  if (value === undefined) return null;
  if (value === 'yes' || value === 'no') return value === 'yes';
  throw usage(`--managed ${quote(value)}: neither yes nor no`, "yes: libvirt binds it; no: hostdev's hook or you do.");
}

/** What the kernel takes for a module's name; it is what libvirt puts into driver_override. */
function readModel(value: Value): string | null {
  if (value === undefined || value === 'auto' || value === 'vfio') return null;
  if (typeof value === 'string' && /^[A-Za-z0-9_-]{1,55}$/.test(value)) return value;
  throw usage(`--driver ${quote(value)}: no name of a driver`, 'For example vfio-pci or mlx5_vfio_pci.');
}

function readRom(value: Value): TakeRequest['rom'] {
  if (value === undefined || typeof value === 'boolean') return null;
  if (value === 'on' || value === 'off') return { bar: value };
  if (value === 'none') return { enabled: 'no' };
  // The schema's absFilePath; QEMU runs elsewhere, so a relative path would mean nothing.
  if (/^\/[^\p{Cc}]{1,4095}$/u.test(value)) return { file: value };
  throw usage(`--rom ${quote(value)}: neither on, off, none nor an absolute path`, 'Give the whole path.');
}

/** libvirt holds it in an unsigned int; QEMU's bootindex is signed. */
function readBoot(value: Value): number | null {
  if (value === undefined) return null;
  if (typeof value === 'string' && /^[1-9]\d{0,8}$/.test(value)) return Number(value);
  throw usage(`--boot ${quote(value)}: not a place in the boot order`, 'It is a number, and the first is 1.');
}

/** NVMe 2.0, 3.2.1: NSIDs go from 1 to 0xfffffffe. */
function readNamespace(own: Invocation['own']): number | null {
  const { nvme } = own;
  if (nvme === undefined) return null;
  const alone = ['vnic', 'driver', 'rom', 'unassigned-peers'].find((n) => own[n] !== undefined);
  if (alone !== undefined) throw usage(`--${alone} means nothing for a disk (--nvme)`, 'Leave one of them out.');
  if (typeof nvme === 'string' && /^[1-9]\d{0,9}$/.test(nvme) && Number(nvme) < 0xffffffff) return Number(nvme);
  throw usage(`--nvme ${quote(nvme)}: no namespace`, 'It is a number, and the first is 1.');
}

function readNicWords(own: Invocation['own']): AskedNic | null {
  const vnic = textOf(own.vnic);
  const words = { mac: textOf(own.mac), vlan: textOf(own.vlan), profile: textOf(own['profile-id']) };
  if (vnic !== undefined) return readNic({ vnic, ...words });
  const [alone] = ['mac', 'vlan', 'profile-id'].filter((n) => own[n] !== undefined);
  if (alone !== undefined) throw usage(`--${alone} is a network interface's`, 'Give --vnic TYPE too.');
  return null;
}
