import type { AskedNic } from '../actions/domainNic.ts';
import { type DomainPlanRequest, planDomain } from '../actions/domainPlan.ts';
import type { Rom } from '../domain/fragments.ts';
import { VNICS } from '../domain/nic.ts';
import { HostdevError } from '../errors.ts';
import type { Answer, Invocation } from './command.ts';
import { readInput } from './input.ts';
import { unifiedDiff } from './unifiedDiff.ts';

const usage = (message: string, hint: string): HostdevError => new HostdevError('HOSTDEV_USAGE', message, { hint });

/** `hostdev domain plan FILE --device DEV…` */
export async function domainPlan({ host, words, own, lists, options }: Invocation): Promise<Answer> {
  const [file = '-', ...more] = words;
  const request = readRequest(own, lists, more);
  if (own.diff === true && own.fragments === true)
    throw usage('--diff and --fragments are two answers', 'Give one of them.');
  const what = file === '-' ? 'stdin' : file;
  const bytes = await readInput(file);
  const { warnings, ...json } = await planDomain(host, bytes, what, request, options);
  const diff =
    own.diff === true
      ? unifiedDiff(new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes), json.xml, oneLine(what))
      : null;
  const text = own.fragments === true ? json.fragments.map((f) => f.xml).join('\n') : (diff ?? json.xml);
  return { json: diff === null ? json : { ...json, diff }, text: harmless(text), warnings };
}

/** A name in the head of a diff: patch(1) ends it at a tab. */
const oneLine = (name: string): string => name.replace(/[\p{Cc}\p{Cf}]/gu, '?');

/** XML goes byte for byte into a file or pipe; on a terminal nothing in it may command it. */
const harmless = (text: string): string =>
  process.stdout.isTTY ? text.replace(/[\x7f-\x9f\r]|\p{Cf}|\u2028|\u2029/gu, '?') : text;

function readRequest(own: Invocation['own'], lists: Invocation['lists'], more: readonly string[]): DomainPlanRequest {
  const { device = [], remove = [], alias = [] } = lists;
  if (alias.length > 0)
    throw usage('--alias picks from the pools, and these come with pools', 'Name the devices with --device.');
  const add = [...device, ...more];
  if (add.length === 0 && remove.length === 0)
    throw usage("'domain plan' needs something to do", 'Give --device DEV or --remove DEV.');
  const request = {
    add,
    remove,
    managed: readManaged(own.managed),
    model: readModel(own.driver),
    rom: readRom(own.rom),
    boot: readNumber('boot', own.boot, 1, 0x7fffffff, 'a place in the boot order, from 1'),
    nic: readNic(own),
    unassignedPeers: own['unassigned-peers'] === true,
  };
  checkTogether(request, own);
  return request;
}

type Value = string | boolean | undefined;

function readManaged(value: Value): boolean | null {
  if (value === undefined) return null;
  if (value === 'yes' || value === 'no') return value === 'yes';
  throw usage(`--managed ${value}: neither yes nor no`, "yes: libvirt binds it; no: hostdev's hook or you do.");
}

/** What the kernel takes for a module's name; it is what libvirt puts into driver_override. */
function readModel(value: Value): string | null {
  if (value === undefined || value === 'auto' || value === 'vfio') return null;
  if (typeof value === 'string' && /^[A-Za-z0-9_-]{1,55}$/.test(value)) return value;
  throw usage(`--driver ${JSON.stringify(value)}: no name of a driver`, 'For example vfio-pci or mlx5_vfio_pci.');
}

function readRom(value: Value): Rom | null {
  if (value === undefined || typeof value === 'boolean') return null;
  if (value === 'on' || value === 'off') return { bar: value };
  if (value === 'none') return { enabled: 'no' };
  // The schema's absFilePath; QEMU runs elsewhere, so a relative path would mean nothing.
  if (/^\/[^\p{Cc}]{1,4095}$/u.test(value)) return { file: value };
  throw usage(`--rom ${JSON.stringify(value)}: neither on, off, none nor an absolute path`, 'Give the whole path.');
}

function readNumber(name: string, value: Value, least: number, most: number, what: string): number | null {
  if (value === undefined) return null;
  if (typeof value === 'string' && /^\d{1,10}$/.test(value) && Number(value) >= least && Number(value) <= most)
    return Number(value);
  throw usage(`--${name} ${value}: not ${what}`, `It is a number from ${least} to ${most}.`);
}

/** libvirt refuses a multicast address for an interface (virDomainNetDefParseXML). */
function readMac(value: Value): string | null {
  if (value === undefined) return null;
  const mac = `${value}`.toLowerCase();
  if (!/^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/.test(mac))
    throw usage(`--mac ${value}: no MAC address`, 'For example 52:54:00:12:34:56.');
  if (Number.parseInt(mac.slice(0, 2), 16) % 2 === 1)
    throw usage(`--mac ${value}: a multicast address`, 'The first pair of digits must be even.');
  return mac;
}

function readNic(own: Invocation['own']): AskedNic | null {
  const profile = own['profile-id'];
  if (own.vnic === undefined) {
    const alone = ['mac', 'vlan', 'profile-id'].find((n) => own[n] !== undefined);
    if (alone !== undefined) throw usage(`--${alone} is a network interface's`, 'Give --vnic TYPE too.');
    return null;
  }
  const vnic = `${own.vnic}`.toLowerCase();
  const type = Object.hasOwn(VNICS, vnic) ? VNICS[vnic] : undefined;
  if (!type) throw usage(`--vnic ${own.vnic}: there is no such type`, `There are: ${Object.keys(VNICS).join(', ')}.`);
  // Nova too takes 0 for "untagged"; 4095 is reserved (802.1Q).
  const vlan = readNumber('vlan', own.vlan, 0, 4094, 'a VLAN id') || null;
  const nic = { vnic, mac: readMac(own.mac), vlan, profile: typeof profile === 'string' ? profile : null };
  if (type.profile && nic.profile === null) throw usage(`--vnic ${vnic} needs a port profile`, 'Give --profile-id ID.');
  if (nic.profile !== null && !/^[^\p{Cc}]{1,39}$/u.test(nic.profile))
    throw usage(
      '--profile-id: not 1 to 39 characters',
      "802.1Qbh's profile ids have at most 39 (virNetDevVPortProfile).",
    );
  if (type.shape === 'physical' && (nic.mac ?? nic.vlan ?? nic.profile) !== null)
    throw usage(`--vnic ${vnic} has no --mac, --vlan or --profile-id`, 'The guest drives the function itself.');
  if (type.shape === 'vdpa' && (nic.vlan ?? nic.profile) !== null)
    throw usage(`--vnic ${vnic} has no --vlan or --profile-id`, 'libvirt knows neither for vDPA.');
  if (nic.profile !== null && nic.vlan !== null)
    throw usage('--vlan and --profile-id exclude each other', 'With 802.1Qbh the switch sets the VLAN.');
  return nic;
}

/** Options that mean nothing together are an error, not silence. */
function checkTogether(request: DomainPlanRequest, own: Invocation['own']): void {
  const forAdded = ['managed', 'driver', 'rom', 'boot', 'vnic', 'unassigned-peers'];
  const idle = request.add.length === 0 ? forAdded.find((n) => own[n] !== undefined) : undefined;
  if (idle !== undefined) throw usage(`--${idle} is about a device that is put in`, 'Give --device DEV too.');
  if (request.boot !== null && request.add.length > 1)
    throw usage('--boot is for one device', 'Plan the devices one after the other, each with its place.');
  const shape = request.nic === null ? null : VNICS[request.nic.vnic]?.shape;
  if (shape !== 'macvtap' && shape !== 'vdpa') {
    if (request.nic?.mac != null && request.add.length > 1)
      throw usage('--mac is for one device', 'Plan the interfaces one after the other, each with its MAC.');
    return;
  }
  const foreign = ['managed', 'driver', 'unassigned-peers'].find((n) => own[n] !== undefined);
  if (foreign !== undefined)
    throw usage(`--${foreign} means nothing for --vnic ${request.nic?.vnic}`, 'The function stays on its host driver.');
}
