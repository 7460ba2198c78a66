/**
 * Why the kernel put functions into one IOMMU group: the rules of drivers/iommu/iommu.c pci_device_group, told
 * backwards from the group that it made. The group itself is what counts (quirks of the kernel and ACS overrides show
 * in it); what is said here is the reason for it. Pure.
 */
import type { Address } from './address.ts';
import { type AcsBit, type ConfigSpace, lackedAcs, type NoConfig, type PcieType } from './configSpace.ts';
import { sameSlot } from './path.ts';

export type Member = {
  address: Address;
  /** The bridges above it, the nearest first. */
  above: Address[];
  isVf: boolean;
  /** No bridge, but its driver makes what is below it. */
  isMaker?: boolean;
  config: ConfigSpace | NoConfig;
};

/** One reason that joins functions: `at` is the bridge, port or slot's first function that does it. */
export type Join = {
  kind: 'port-acs' | 'maker' | 'conventional-bridge' | 'functions-acs' | 'unmeasured' | 'unknown';
  at: Address;
  /** What it joins, in the order of the group, `at` included. */
  members: Address[];
  pcie: PcieType | null;
  /** The bits that are off; empty when there is no ACS capability at all, null where ACS is not the reason. */
  missing: AcsBit[] | null;
  /** Why it was not measured. */
  unmeasured: NoConfig | null;
};

const measured = (c: ConfigSpace | NoConfig): c is ConfigSpace => !('unmeasured' in c);

/**
 * What a member lacks; "several functions in the slot" is a device's own flag, or its being another function than 0
 * (drivers/pci/probe.c), and never a VF's.
 */
function lacked(m: Member, c: ConfigSpace): ReturnType<typeof lackedAcs> {
  return lackedAcs({ ...c, multifunction: !m.isVf && (c.multifunction || !m.address.endsWith('.0')) });
}

/** The reasons that hold a group together; none for a group of one. */
export function explainGroup(members: readonly Member[]): Join[] {
  const joins = [...members.flatMap((m) => bridgeJoin(members, m)), ...slotJoins(members)];
  const parts = components(members, joins);
  const [first] = parts;
  if (first !== undefined && parts.length > 1) {
    joins.push({
      kind: 'unknown',
      at: first[0] ?? '',
      members: parts.map((p) => p[0] ?? ''),
      pcie: null,
      missing: null,
      unmeasured: null,
    });
  }
  return joins;
}

/**
 * A bridge in the group with members below it: they can reach each other, or the bridge itself, without passing the
 * IOMMU.
 */
function bridgeJoin(members: readonly Member[], bridge: Member): Join[] {
  const below = members.filter((m) => m.above.includes(bridge.address));
  if (below.length === 0) return [];
  const join = {
    at: bridge.address,
    members: [bridge, ...below].map((m) => m.address),
    pcie: null,
    missing: null,
    unmeasured: null,
  };
  if (bridge.isMaker) return [{ ...join, kind: 'maker' }];
  const { config } = bridge;
  if (!measured(config)) return [{ ...join, kind: 'unmeasured', unmeasured: config }];
  const lacks = lacked(bridge, config);
  if (lacks.kind === 'conventional') return [{ ...join, kind: 'conventional-bridge', pcie: config.pcie }];
  if (lacks.kind === 'none') return [];
  return [{ ...join, kind: 'port-acs', pcie: config.pcie, missing: lacks.kind === 'bits' ? lacks.bits : [] }];
}

/** Functions of one slot that do not keep apart from each other. */
function slotJoins(members: readonly Member[]): Join[] {
  const joins: Join[] = [];
  const done = new Set<Address>();
  for (const m of members) {
    const slot = members.filter((o) => !o.isVf && sameSlot(m.address, o.address));
    if (m.isVf || done.has(m.address) || slot.length < 2) continue;
    for (const o of slot) done.add(o.address);
    const open = slot.flatMap((o) => {
      const lacks = measured(o.config) ? lacked(o, o.config) : null;
      return lacks?.kind === 'none' ? [] : [{ o, lacks }];
    });
    if (open.length < 2) continue;
    const at = open[0]?.o.address ?? m.address;
    const blind = open.find(({ o }) => !measured(o.config))?.o.config;
    const bits = open.flatMap(({ lacks }) => (lacks?.kind === 'bits' ? lacks.bits : []));
    joins.push({
      kind: blind === undefined ? 'functions-acs' : 'unmeasured',
      at,
      members: open.map(({ o }) => o.address),
      pcie: null,
      missing: [...new Set(bits)],
      unmeasured: blind !== undefined && !measured(blind) ? blind : null,
    });
  }
  return joins;
}

/** The group's members as the joins connect them. */
function components(members: readonly Member[], joins: readonly Join[]): Address[][] {
  let parts: Address[][] = members.map((m) => [m.address]);
  for (const join of joins) {
    const touched = parts.filter((p) => p.some((a) => join.members.includes(a)));
    if (touched.length > 1) parts = [touched.flat(), ...parts.filter((p) => !touched.includes(p))];
  }
  return parts;
}
