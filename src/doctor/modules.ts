/** VFIO's modules, the variant drivers for the devices here, and what modprobe was told about them. */
import { denylistAdvice, denylisted } from '../binding/drivers/denylist.ts';
import { type ModuleLists, readModuleLists } from '../binding/drivers/driverChoice.ts';
import { chooseVariant, type Modalias, parseModalias } from '../binding/drivers/variant.ts';
import { architecture } from '../host/architecture.ts';
import { type Directive, optionIds, readDirectives } from '../host/modprobe.ts';
import { isBridge, type PciDevice } from '../pci/inventory.ts';
import { anyOf, distribution } from './distribution.ts';
import { commandFix, NIXOS, nixosFix, shellWord, UNTIL_REBOOT } from './fix.ts';
import { checkIds, STUBS } from './ids.ts';
import { loadFix, modprobeFix, rebuildThen } from './initramfs.ts';
import { removeDirective } from './kernelLine.ts';
import { kernelHas } from './kernelModules.ts';
import type { Look } from './look.ts';
import { checkModuleLists } from './moduleLists.ts';
import { type Draft, finding } from './table.ts';
import { addresses, place } from './words.ts';

/**
 * What a guest with a device needs; vfio_virqfd is part of vfio_pci_core since 6.2. POWER maps by spapr_tce
 * (drivers/vfio/vfio_iommu_spapr_tce.c).
 */
const needed = (look: Look): string[] => {
  const power = architecture(look.host) === 'power' && !isLoaded(look, 'vfio_iommu_type1');
  return ['vfio', power ? 'vfio_iommu_spapr_tce' : 'vfio_iommu_type1', 'vfio_pci'];
};

export function checkModules(look: Look): Draft[] {
  const { directives, ignored, unmeasured } = readDirectives(look.host);
  for (const reason of unmeasured) look.missed('modprobe.d', reason);
  const lists = look.quiet('modules.alias', () => readModuleLists(look.host));
  return [
    ...checkPresent(look),
    ...checkVfioBlacklists(look, directives),
    ...(lists === null ? [] : checkVariants(look, lists, directives)),
    ...checkDenylist(look),
    ...checkIds(look, directives),
    ...checkIgnored(look, ignored),
    ...checkModuleLists(look),
    ...(lists === null ? [] : checkBlacklists(look, lists, directives)),
    ...checkSoftdeps(look, directives),
  ];
}

const isLoaded = (look: Look, module: string): boolean =>
  look.quiet(module, () => look.host.list(look.host.module(module))) !== null;

function checkPresent(look: Look): Draft[] {
  const { host } = look;
  const all = needed(look);
  const missing = all.filter((m) => !isLoaded(look, m));
  if (missing.length === 0) return [];
  const there = kernelHas(look);
  if (there === null) {
    look.missed('VFIO modules', `${missing.join(', ')} not loaded, and modules.dep of the running kernel is not there`);
    return [];
  }
  const { release } = host;
  const absent = missing.filter((m) => !there(m));
  const found: Draft[] = [];
  if (absent.length > 0)
    found.push(
      finding(
        'vfio-missing',
        `/lib/modules/${release}`,
        `${absent.join(', ')}: neither loaded nor among the modules of kernel ${release}`,
        [
          look.has(NIXOS)
            ? nixosFix('boot.kernelPackages = pkgs.linuxPackages;')
            : commandFix(
                distribution(look)?.modules(release ?? '') ?? anyOf((d) => d.modules(release ?? '')),
                'reboot, if the kernel is another one then; or boot a kernel of the distribution',
              ),
        ],
      ),
    );
  const idle = missing.filter(there);
  if (idle.length > 0)
    found.push(finding('vfio-not-loaded', idle.join(' '), `${idle.join(', ')}: not loaded now`, loadFix(look, all)));
  return found;
}

/**
 * What keeps a module from being loaded: kmod's blacklist (hostdev and libvirt load with `modprobe -b`), the kernel's
 * own, or an install command that does nothing.
 */
function blockers(directives: readonly Directive[], module: string): Directive[] {
  return directives.filter(
    (d) =>
      d.module === module &&
      (d.kind === 'blacklist' ||
        (d.kind === 'install' && /^(?:(?:\/usr)?\/bin\/)?(?:false|true|:)(?:\s|$)/.test(d.rest))),
  );
}

function checkVfioBlacklists(look: Look, directives: readonly Directive[]): Draft[] {
  return needed(look)
    .flatMap((m) => (isLoaded(look, m) ? [] : blockers(directives, m)))
    .map((d) =>
      finding(
        'vfio-blacklisted',
        place(d),
        `"${d.text}" keeps ${d.module} from being loaded`,
        removeDirective(look, d),
      ),
    );
}

function checkVariants(look: Look, lists: ModuleLists, directives: readonly Directive[]): Draft[] {
  const { host } = look;
  const best = new Map<string, string | null>();
  const byModule = new Map<string, PciDevice[]>();
  for (const d of look.inventory.devices) {
    if (isBridge(d)) continue;
    const modalias = look.quiet(d.address, () => host.read(host.device(d.address, 'modalias')));
    if (modalias === null) continue;
    // Thousands of VFs share one modalias, and each search goes through a megabyte.
    if (!best.has(modalias)) best.set(modalias, chooseVariant(modalias, lists.alias, lists.builtin)?.module ?? null);
    const module = best.get(modalias);
    if (module == null || module === 'vfio_pci') continue;
    byModule.set(module, [...(byModule.get(module) ?? []), d]);
  }
  const found: Draft[] = [];
  for (const [module, devices] of byModule) {
    found.push(finding('variant-present', module, `the kernel's variant driver for ${addresses(devices)}`));
    const generic = devices.filter((d) => d.driver === 'vfio-pci');
    if (generic.length > 0)
      found.push(
        finding('variant-unused', addresses(generic), `on vfio-pci, where the kernel would choose ${module}`, [
          commandFix(
            `hostdev unbind --to-host ${generic[0]?.address} && hostdev bind ${generic[0]?.address}`,
            `the guest must be stopped; then the same for the others; ${UNTIL_REBOOT}`,
          ),
        ]),
      );
    for (const d of isLoaded(look, module) ? [] : blockers(directives, module))
      found.push(
        finding(
          'variant-blacklisted',
          place(d),
          `"${d.text}" keeps ${module} from ${addresses(devices)}`,
          removeDirective(look, d),
        ),
      );
  }
  return found;
}

function checkDenylist(look: Look): Draft[] {
  const { host } = look;
  if (
    look.quiet('disable_denylist', () => host.read(host.module('vfio_pci', 'parameters/disable_denylist')))?.trim() ===
    'Y'
  )
    return [];
  const denied = new Map<string, PciDevice[]>();
  for (const d of look.inventory.devices) {
    const family = denylisted(d.vendor_id ?? '', d.product_id ?? '')?.family;
    if (family !== undefined) denied.set(family, [...(denied.get(family) ?? []), d]);
  }
  return [...denied].map(([family, devices]) =>
    finding(
      'denylist',
      addresses(devices),
      `${family}: ${denylistAdvice()}`,
      modprobeFix(look, 'options vfio-pci disable_denylist=1'),
    ),
  );
}

/** The devices here that a module's own aliases name. */
function devicesOf(look: Look, lists: ModuleLists, module: string): PciDevice[] {
  const patterns: Modalias[] = [];
  const end = ` ${module}\n`;
  const text = lists.alias.endsWith('\n') ? lists.alias : `${lists.alias}\n`;
  for (let at = text.indexOf(end); at >= 0; at = text.indexOf(end, at + 1)) {
    const line = text.slice(text.lastIndexOf('\n', at - 1) + 1, at);
    const pattern = line.startsWith('alias pci:') ? parseModalias(line.slice('alias '.length)) : null;
    if (pattern !== null) patterns.push(pattern);
  }
  return look.inventory.devices.filter((d) => {
    const own = {
      v: `0000${d.vendor_id}`,
      d: `0000${d.product_id}`,
      sv: `0000${d.subsystem_vendor_id}`,
      sd: `0000${d.subsystem_device_id}`,
      bc: d.class?.slice(0, 2) ?? '',
      sc: d.class?.slice(2, 4) ?? '',
      i: d.class?.slice(4) ?? '',
    };
    return patterns.some((p) =>
      (Object.keys(own) as (keyof typeof own)[]).every((f) => p[f] === '*' || p[f].toLowerCase() === own[f]),
    );
  });
}

/** Distributions blacklist hundreds of modules; what the admin wrote is in /etc and on the command line. */
const byAdmin = (d: Directive): boolean => d.file.startsWith('etc/') || d.line === 0;

/** Drivers that people blacklist for passthrough, installed or not. */
const GPU_DRIVERS = /^(?:nouveau|nvidia\w*|amdgpu|radeon|i915|xe|snd_hda_intel)$/;

function checkBlacklists(look: Look, lists: ModuleLists, directives: readonly Directive[]): Draft[] {
  const seen = new Set<string>();
  return directives.flatMap((d): Draft[] => {
    if (d.kind !== 'blacklist' || !byAdmin(d) || d.module.includes('vfio')) return [];
    if (seen.has(`${d.module} ${place(d)}`)) return [];
    seen.add(`${d.module} ${place(d)}`);
    const devices = devicesOf(look, lists, d.module);
    const fix = removeDirective(look, d);
    // Of modules that drive no PCI device (USB, sound codecs, …) nothing is said; a GPU's vendor driver may not be
    // installed now.
    if (devices.length === 0 && !GPU_DRIVERS.test(d.module) && !hasPciAlias(lists, d.module)) return [];
    if (devices.length === 0)
      return [finding('blacklist-unneeded', place(d), `"${d.text}": no device of this host is ${d.module}'s`, fix)];
    const gpus = devices.filter((p) => p.class?.startsWith('03'));
    return gpus.length > 0
      ? [finding('blacklist-gpu', place(d), `"${d.text}" keeps ${d.module} from ${addresses(gpus)}`, fix)]
      : [finding('blacklist-host-driver', place(d), `"${d.text}" keeps ${d.module} from ${addresses(devices)}`, fix)];
  });
}

/** True when the kernel's lists have the module as a PCI driver at all. */
function hasPciAlias(lists: ModuleLists, module: string): boolean {
  for (let at = lists.alias.indexOf(` ${module}\n`); at >= 0; at = lists.alias.indexOf(` ${module}\n`, at + 1))
    if (lists.alias.startsWith('alias pci:', lists.alias.lastIndexOf('\n', at - 1) + 1)) return true;
  return false;
}

/** Files that modprobe passes over for their names, though an admin wrote configuration into them. */
const checkIgnored = (look: Look, ignored: readonly Directive[]): Draft[] =>
  ignored.map((d) =>
    finding(
      'modprobe-ignored',
      `/${d.file}`,
      `modprobe reads *.conf only, and so not "${d.text.slice(0, 200)}" in line ${d.line}`,
      [
        commandFix(
          `mv ${shellWord(look.host.absolute(d.file))} ${shellWord(`${look.host.absolute(d.file)}.conf`)}`,
          `then ${rebuildThen(look, 'reboot')}`,
        ),
      ],
    ),
  );

function checkSoftdeps(look: Look, directives: readonly Directive[]): Draft[] {
  // Loaded first it takes the devices of ids=, or runs the script of an install line, which binds them.
  const used = directives.some(
    (d) => d.module in STUBS && (d.kind === 'install' || (d.kind === 'options' && optionIds(d.rest).length > 0)),
  );
  if (used) return [];
  return directives
    .filter((d) => d.kind === 'softdep' && byAdmin(d) && /\bpre:.*\b(?:vfio[-_]pci|pci[-_]stub)\b/.test(d.rest))
    .map((d) =>
      finding(
        'softdep-unneeded',
        place(d),
        `"${d.text}" loads vfio-pci first, which takes no device without ids=`,
        removeDirective(look, d),
      ),
    );
}
