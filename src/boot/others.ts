/**
 * Who else, on this host, sets a PF's number of VFs or a device's driver at boot. hostdev leaves what they own to them
 * and says so: two that write sriov_numvfs, or an override, undo each other at every boot. Only files that an admin
 * writes are read, as far as their line says it; what cannot be read is nobody's.
 */
import { orNull } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { PciDevice } from '../pci/inventory.ts';

/** `what`: which of the two it sets. `value` as it stands there. */
export type Other = { tool: string; file: string; line: number; what: 'vfs' | 'driver'; value: string };

const MAX_FILE = 256 * 1024;
const MAX_FILES = 256;

const LINKS = [
  'etc/systemd/network',
  'run/systemd/network',
  'usr/local/lib/systemd/network',
  'usr/lib/systemd/network',
];
const CONNECTIONS = [
  'etc/NetworkManager/system-connections',
  'run/NetworkManager/system-connections',
  'usr/lib/NetworkManager/system-connections',
];
const NETPLAN = ['etc/netplan', 'run/netplan', 'usr/lib/netplan'];
const DRIVERCTL = 'etc/driverctl.d';

type Line = { section: string; key: string; value: string; line: number };

function files(host: Host, folders: readonly string[], suffix: RegExp): string[] {
  const seen = new Set<string>();
  return folders
    .flatMap((folder) =>
      (orNull(() => host.list(folder)) ?? [])
        .filter((n) => suffix.test(n))
        .flatMap((n) => {
          // A name in an earlier folder hides the same in later ones.
          if (seen.has(n)) return [];
          seen.add(n);
          return `${folder}/${n}`;
        }),
    )
    .slice(0, MAX_FILES);
}

/** Lines of a file in the form of systemd and of NetworkManager. */
function iniLines(host: Host, file: string): Line[] {
  let section = '';
  return (orNull(() => host.read(file, MAX_FILE)) ?? '').split('\n').flatMap((raw, i): Line[] => {
    const text = raw.trim();
    const head = /^\[([^\]]{1,64})\]$/.exec(text)?.[1];
    if (head !== undefined) section = head;
    const [, key = '', value = ''] = /^([\w-]{1,64})\s*=\s*(.{0,1024})$/.exec(text) ?? [];
    return key === '' || head !== undefined ? [] : [{ section, key, value: value.trim(), line: i + 1 }];
  });
}

/** A device as these files name it. */
type Named = { device: PciDevice; interfaces: string[]; macs: string[] };

/** Shell patterns of systemd's [Match], a list of them; one with ! before it excludes. */
function matchesAny(patterns: string, texts: readonly string[]): boolean {
  const words = patterns.split(/\s+/).filter(Boolean);
  const invert = words[0]?.startsWith('!') === true;
  const plain = words.map((w, n) => (n === 0 && invert ? w.slice(1) : w));
  const any = plain.some((p) => {
    const re = new RegExp(
      `^${p
        .replace(/[.+^${}()|\\[\]]/g, '\\$&')
        .replace(/\*/g, '.*')
        .replace(/\?/g, '.')}$`,
      'i',
    );
    return texts.some((t) => re.test(t));
  });
  return any !== invert;
}

/**
 * systemd.link(5): of the links that match, the first by name counts; one of ours that says nothing of VFs sets none.
 */
function ofLinks(host: Host, { device, interfaces, macs }: Named): Other[] {
  const sorted = files(host, LINKS, /\.link$/).sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1));
  for (const file of sorted) {
    const lines = iniLines(host, file);
    const matches = lines.filter((l) => l.section === 'Match');
    const known: Record<string, readonly string[]> = {
      Path: [`pci-${device.address}`],
      Driver: device.driver === null ? [] : [device.driver],
      OriginalName: interfaces,
      MACAddress: macs,
      PermanentMACAddress: macs,
    };
    // What cannot be judged from here does not exclude.
    const fits =
      matches.length > 0 && matches.every((m) => !(m.key in known) || matchesAny(m.value, known[m.key] ?? []));
    if (!fits) continue;
    const sets = lines.find((l) => l.section === 'Link' && l.key === 'SR-IOVVirtualFunctions');
    return sets === undefined ? [] : [{ tool: 'systemd', file, line: sets.line, what: 'vfs', value: sets.value }];
  }
  return [];
}

const nameOf = (file: string): string => file.slice(file.lastIndexOf('/') + 1);

/** NetworkManager's keyfiles: [sriov] total-vfs of the profile for one of its interfaces. */
function ofConnections(host: Host, { interfaces, macs }: Named): Other[] {
  return files(host, CONNECTIONS, /\.nmconnection$|^[^.]+$/).flatMap((file): Other[] => {
    const lines = iniLines(host, file);
    const sets = lines.find((l) => l.section === 'sriov' && l.key === 'total-vfs');
    const name = lines.find((l) => l.section === 'connection' && l.key === 'interface-name')?.value;
    const mac = lines
      .find((l) => /^(?:802-3-)?ethernet$/.test(l.section) && l.key === 'mac-address')
      ?.value.toLowerCase();
    const mine = (name !== undefined && interfaces.includes(name)) || (mac !== undefined && macs.includes(mac));
    return sets === undefined || !mine
      ? []
      : [{ tool: 'NetworkManager', file, line: sets.line, what: 'vfs', value: sets.value }];
  });
}

/** netplan's YAML: virtual-function-count below the key of an interface, or below one whose match names it. */
function ofNetplan(host: Host, { interfaces, macs }: Named): Other[] {
  return files(host, NETPLAN, /\.ya?ml$/).flatMap((file): Other[] => {
    const lines = (orNull(() => host.read(file, MAX_FILE)) ?? '').split('\n');
    return lines.flatMap((raw, i): Other[] => {
      const [, indent = '', value] = /^(\s*)virtual-function-count:\s*["']?(\d{1,5})/.exec(raw) ?? [];
      if (value === undefined) return [];
      const depth = (text: string): number => /^\s*/.exec(text)?.[0].length ?? 0;
      const isBlank = (text: string): boolean => /^\s*(?:#|$)/.test(text);
      let from = i;
      while (from > 0 && (isBlank(lines[from] ?? '') || depth(lines[from] ?? '') >= indent.length)) from -= 1;
      const name = /^\s*["']?([\w.:-]{1,64})["']?:/.exec(lines[from] ?? '')?.[1] ?? '';
      let to = i + 1;
      while (to < lines.length && (isBlank(lines[to] ?? '') || depth(lines[to] ?? '') >= indent.length)) to += 1;
      const block = lines.slice(from + 1, to).join('\n');
      const matched = [...block.matchAll(/^\s*(?:name|macaddress):\s*["']?([^\s"'#]{1,64})/gm)].map((m) =>
        (m[1] ?? '').toLowerCase(),
      );
      const mine = interfaces.includes(name) || matched.some((w) => matchesAny(w, [...interfaces, ...macs]));
      return mine ? [{ tool: 'netplan', file, line: i + 1, what: 'vfs', value }] : [];
    });
  });
}

/** driverctl's own file of the device holds one word, the driver (driverctl 0.115, load_override). */
function ofDriverctl(host: Host, { device }: Named): Other[] {
  const file = `${DRIVERCTL}/pci-${device.address}`;
  const value = (orNull(() => host.read(file, 256)) ?? '').trim();
  return value === '' ? [] : [{ tool: 'driverctl', file, line: 1, what: 'driver', value }];
}

/** Those that have a hand in a device at boot. */
export function othersOf(host: Host, device: PciDevice): Other[] {
  const interfaces = orNull(() => host.list(host.device(device.address, 'net'))) ?? [];
  const macs = interfaces.flatMap(
    (n) =>
      orNull(() => host.read(host.device(device.address, `net/${n}/address`)))
        ?.trim()
        .toLowerCase() ?? [],
  );
  const named = { device, interfaces, macs };
  const vfs =
    device.dev_type === 'type-PF'
      ? [...ofLinks(host, named), ...ofConnections(host, named), ...ofNetplan(host, named)]
      : [];
  return [...vfs, ...ofDriverctl(host, named)];
}

/** For messages: who, and where. */
export const otherText = ({ tool, file, line, what, value }: Other): string =>
  `/${file}:${line} (${tool}) sets its ${what === 'vfs' ? 'number of VFs' : 'driver'} to ${value.slice(0, 64)}`;
