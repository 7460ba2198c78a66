/**
 * `config check`: every mistake of a configuration with its place, and what its specs take on this host or in a saved
 * inventory.
 */
import { readWishes } from '../boot/wishes.ts';
import { type Finding, remark, sortFindings } from '../config/place.ts';
import type { Host } from '../host/host.ts';
import { allocatorOf, mostOf } from '../nova/allocation.ts';
import { NovaError } from '../nova/grammar/novaError.ts';
import { starlingxNotes } from '../nova/grammar/starlingx.ts';
import { matchAll, matchFindings, nowhere } from '../nova/matches.ts';
import { type PciSetup, readSetup, type SetupOptions } from '../nova/setup.ts';
import { unknownFacts } from '../pci/facts.ts';
import { isBridge } from '../pci/inventory.ts';
import { fromInventory } from '../pool/device.ts';
import { PciTracker } from '../pool/tracker.ts';
import type { Warned } from './options.ts';
import { seenWishes } from './wishes.ts';

/** What one spec takes: `devices` come to it, `hidden` would, but for a spec before it. */
type SpecReport = {
  index: number;
  key: string;
  file: string;
  line: number;
  devices: string[];
  hidden: string[];
};

/** `devices`: how many a request for it could get, were nothing in use; null where mistakes keep Nova from starting. */
type AliasReport = { name: string; file: string; line: number; devices: number | null };

export type CheckedConfig = Warned & {
  form: PciSetup['config']['form'];
  files: string[];
  /** Exit 3 when there is one. */
  mistakes: Finding[];
  remarks: Finding[];
  specs: SpecReport[];
  aliases: AliasReport[];
  wishes: WishesReport[];
};

/**
 * A wish: `address` is the device that it means, null for none; `reason` why it is not met. Null, both, for a saved
 * inventory.
 */
type WishesReport = {
  key: string;
  file: string;
  line: number;
  address: string | null;
  met: boolean | null;
  reason: string | null;
};

/** Raises what readSetup raises: files that cannot be read at all, a wrong inventory. */
export async function checkConfig(host: Host, options: SetupOptions): Promise<CheckedConfig> {
  const setup = await readSetup(host, options);
  const { config, inventory, facts } = setup;
  const matched = matchAll(setup);
  const findings = [
    ...setup.findings,
    ...matchFindings(options.inventory === null ? host : null, setup, matched),
    ...allowances(setup, options.inventory === null),
    ...readWishes(config).findings,
  ];
  const wishes = wishesOf(host, setup, options.inventory === null);
  for (const w of wishes)
    if (w.met === false && w.address === null)
      findings.push(remark({ ...w, column: 0 }, `is not on this host: ${w.reason}`));
  if (config.pci.pci_in_placement && !config.pci.report_in_placement)
    findings.push(
      remark(
        nowhere('pci_in_placement'),
        'is on, and report_in_placement is off: nothing is reported that could be allocated',
        {
          hint: 'Set [pci] report_in_placement = true on the computes first.',
        },
      ),
    );
  const served = findings.some((f) => f.fatal) ? null : servedAliases(setup);
  for (const { name, place } of served === null ? [] : setup.aliasPlaces)
    if (served?.get(name) === 0) findings.push(remark(place, `${JSON.stringify(name)} finds no device here`));
  if (config.specs.length === 0 && (config.form === 'nova' || config.form === 'both' || config.aliases.length > 0))
    findings.push(remark(nowhere('device_spec'), 'there is none, so that nothing may be given out'));
  if (config.pci.starlingx_default_aliases)
    findings.push(
      ...starlingxNotes(inventory.devices).map((n) => remark(nowhere('pci.starlingx_default_aliases'), n.text)),
    );
  sortFindings(findings, config.files);
  return {
    form: config.form,
    files: config.files,
    mistakes: findings.filter((f) => f.severity === 'error'),
    remarks: findings.filter((f) => f.severity === 'warning'),
    specs: setup.specs.map(({ place }, index) => ({
      index,
      key: place.key,
      file: place.file,
      line: place.line,
      devices: matched.devices[index]?.map((d) => d.address) ?? [],
      hidden: matched.hidden[index]?.map((d) => d.address) ?? [],
    })),
    aliases: setup.aliasPlaces.map(({ name, place }) => ({
      name,
      file: place.file,
      line: place.line,
      devices: served?.get(name) ?? null,
    })),
    wishes,
    warnings: [...inventory.warnings, ...unknownFacts(facts)],
  };
}

function wishesOf(host: Host, { config, inventory }: PciSetup, here: boolean): WishesReport[] {
  if (!here)
    return readWishes(config).wishes.map(({ place: { key, file, line } }) => ({
      key,
      file,
      line,
      address: null,
      met: null,
      reason: null,
    }));
  return seenWishes(host, inventory, config).seen.map(({ match: { wish, device }, why }) => {
    const { key, file, line } = wish.place;
    return { key, file, line, address: device?.address ?? null, met: why === null, reason: why };
  });
}

/** Null when Placement would be told nothing. */
function servedAliases(setup: PciSetup): Map<string, number> | null {
  try {
    return countServed(setup);
  } catch (e) {
    if (e instanceof NovaError) return null;
    throw e;
  }
}

function countServed(setup: PciSetup): Map<string, number> {
  const { specs, inventory, facts, aliases } = setup;
  const devices = fromInventory(inventory.devices.filter((d) => !isBridge(d)));
  const tracker = new PciTracker(
    specs.map((s) => s.value),
    devices,
    facts,
  );
  const allocator = allocatorOf(setup, tracker, false);
  const most = tracker.devices().length;
  return new Map(
    [...aliases].map(([name, { specs: spec, numa_policy }]) => [
      name,
      mostOf(allocator, { alias_name: name, count: 1, numa_policy, spec }, most),
    ]),
  );
}

function allowances({ config, inventory }: PciSetup, here: boolean): Finding[] {
  if (!here) return [];
  return config.allow
    .filter((a) => !inventory.byAddress.has(a.device))
    .map((a) => remark({ ...a.place, key: `${a.place.key}.device` }, `is not on this host: ${a.device}`));
}
