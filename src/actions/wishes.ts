/**
 * The wishes of a host with what they mean on it now: what `wish`, `status`, `doctor`, `config check` and the boot go
 * by.
 */
import { type Match, matchWishes, noMatchText } from '../boot/match.ts';
import { whyNotMet } from '../boot/met.ts';
import { viewOf } from '../boot/view.ts';
import { readWishes, type Wish } from '../boot/wishes.ts';
import type { Config } from '../config/config.ts';
import { loadConfig } from '../config/load.ts';
import type { Finding } from '../config/place.ts';
import type { Host } from '../host/host.ts';
import type { Identity } from '../pci/identity.ts';
import { type Inventory, scanInventory } from '../pci/inventory.ts';

/** A wish with the device that it means. `why` not met, or no device at all; null when it is met. */
export type SeenWish = { match: Match; why: string | null };

export type HostWishes = {
  seen: SeenWish[];
  /** Those too that do not count. */
  all: Wish[];
  findings: Finding[];
  files: string[];
  inventory: Inventory;
};

/**
 * Reads and matches. Raises what reading the configuration raises; with `tolerant` only what keeps all of it from being
 * read.
 */
export async function hostWishes(host: Host, tolerant = false): Promise<HostWishes> {
  return seenWishes(host, scanInventory(host), await loadConfig(host, [], tolerant));
}

/** {@link hostWishes} of a configuration that was read. */
export function seenWishes(host: Host, inventory: Inventory, config: Config): HostWishes {
  const { wishes, all, findings } = readWishes(config);
  const matches = wishes.length === 0 ? [] : matchWishes(viewOf(host, inventory), wishes);
  const own = ownOf(matches);
  const seen = matches.map((match): SeenWish => {
    const { wish, device } = match;
    return {
      match,
      why: device === null ? noMatchText(wish, match.why) : whyNotMet(host, inventory, wish, device, own),
    };
  });
  return { seen, all, findings: [...config.findings, ...findings], files: config.files, inventory };
}

/**
 * The devices that have a wish of their own: what is wished for a group, or for the VFs of a PF, does not count for
 * them.
 */
export const ownOf = (matches: readonly Match[]): Set<string> =>
  new Set(matches.flatMap((m) => (m.device === null || m.wish.kind === 'pf' ? [] : m.device.address)));

/** A wish as it is printed. */
export type PrintedWish = Identity & {
  kind: Wish['kind'];
  /** As it was when the wish was made. */
  wished_address: string;
  vf: number | null;
  driver: string | null;
  group: 'endpoints' | null;
  vfs: number | null;
  for: 'vfio' | 'netdev' | null;
  ranges: { first: number; last: number; driver: string | null; vgpu_type: number | null }[];
  allow: string[];
  file: string;
  line: number;
};

export const printedWish = (w: Wish): PrintedWish => ({
  kind: w.kind,
  wished_address: w.address,
  ...w.identity,
  vf: w.kind === 'device' ? w.vf : null,
  driver: w.kind === 'device' ? w.driver : null,
  group: w.kind === 'device' && w.group ? 'endpoints' : null,
  vfs: w.kind === 'pf' ? w.vfs : null,
  for: w.kind === 'pf' ? w.for : null,
  ranges: w.kind === 'pf' ? w.ranges : [],
  allow: w.allow,
  file: w.place.file,
  line: w.place.line,
});
