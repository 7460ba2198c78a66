/** `doctor`: looks at everything that passthrough depends on, and changes nothing. */

import type { Usage } from '../binding/guards.ts';
import { observing } from '../binding/session.ts';
import { readUsages } from '../binding/usage.ts';
import { othersOf, otherText } from '../boot/others.ts';
import { isOff } from '../boot/report.ts';
import { wishPlace } from '../boot/wishes.ts';
import { ownFiles } from '../config/readText.ts';
import { commandFix } from '../doctor/fix.ts';
import { checkHooks } from '../doctor/hooks.ts';
import { checkDisplay, checkLockdown, checkMemlock, checkNative } from '../doctor/host.ts';
import { checkIommu } from '../doctor/iommu.ts';
import { checkOverrides, checkScripts } from '../doctor/leftovers.ts';
import { Look } from '../doctor/look.ts';
import { checkModules } from '../doctor/modules.ts';
import { checkResets } from '../doctor/reset.ts';
import { settled, toBind } from '../doctor/settle.ts';
import { type Draft, type Finding, type Fix, finding, type Unmeasured } from '../doctor/table.ts';
import { checkVgpus } from '../doctor/vgpu.ts';
import { tooOld, tooOldText } from '../domain/version.ts';
import { HostdevError } from '../errors.ts';
import { type HookProgram, hookStatus } from '../hook/install.ts';
import type { Host } from '../host/host.ts';
import { processesNamed } from '../host/processes.ts';
import { installedVersions } from '../libvirt/versions.ts';
import type { Address } from '../pci/address.ts';
import { scanInventory } from '../pci/inventory.ts';
import { advice, type Severity } from '../text/finding.ts';
import { checkConfig } from './configCheck.ts';
import { checkInitramfs } from './initramfsCheck.ts';
import type { Warned } from './options.ts';
import { hostWishes } from './wishes.ts';

export type Diagnosis = Warned & {
  /** The worst first. */
  findings: Finding[];
  /** What could not be looked at: it is neither well nor ill. */
  not_measured: Unmeasured[];
};

/** Time for looks that may hang, in ms. */
const LOOK_MS = 3000;

const ORDER: readonly Severity[] = ['error', 'warning', 'note'];

/** What libvirt's daemon for qemu calls itself, monolithic and modular. */
const LIBVIRT = ['libvirtd', 'virtqemud'];

/** Every finding on this host. A check that fails itself is "not measured"; the others go on. */
export async function diagnose(host: Host, program: HookProgram): Promise<Diagnosis> {
  const inventory = scanInventory(host);
  const look = new Look(host, inventory);
  const libvirts = look.quiet('processes', () => processesNamed(host, LIBVIRT)) ?? [];
  const own = look.quiet('libvirt hooks', () => hookStatus(host, program));
  const checks: [string, () => Draft[] | Promise<Draft[]>][] = [
    ['IOMMU', () => checkIommu(look)],
    ['modules', () => checkModules(look)],
    ['boot scripts', () => checkScripts(look)],
    ['driver overrides', () => checkOverrides(look)],
    ['libvirt hooks', () => (own === null ? [] : checkHooks(look, own, libvirts))],
    ['versions', () => checkVersions(host)],
    ['native part', () => checkNative(look)],
    ['memlock', () => checkMemlock(look, libvirts)],
    ['lockdown', () => checkLockdown(look)],
    ['display', () => checkDisplay(look)],
    ['resets', () => checkResets(look)],
    ['vGPUs', () => checkVgpus(look)],
    ['configuration', () => checkConfiguration(host)],
    ['wishes', () => checkWishes(host)],
    ['initramfs', () => checkInitramfs(look)],
  ];
  const drafts: Draft[] = [];
  for (const [name, check] of checks) {
    try {
      drafts.push(...(await check()));
    } catch (e) {
      look.missed(name, (e as Error).message);
    }
  }
  drafts.sort((a, b) => ORDER.indexOf(a.severity) - ORDER.indexOf(b.severity));
  const wanted = toBind(drafts);
  const usages =
    wanted.length === 0
      ? new Map<Address, Usage>()
      : await observing(host, { deadlineMs: LOOK_MS }, (work) => readUsages(work, wanted)).catch((e: unknown) => {
          look.missed('what the host does with the devices to bind', (e as Error).message);
          return new Map<Address, Usage>();
        });
  const findings = settled(look, drafts, usages);
  return { findings, not_measured: look.unmeasured, warnings: inventory.warnings };
}

/** Those of the programs that are installed. */
export async function checkVersions(host: Host): Promise<Draft[]> {
  return tooOld(await installedVersions(host, process.arch === 'arm64' ? 'aarch64' : 'x86_64')).map((v) =>
    finding('libvirt-old', v.program, tooOldText(v), [advice(v.program, `install ${v.program} ${v.least} or newer`)]),
  );
}

/** Wishes that are not met, and those that others have a hand in; mistakes in them are the configuration's. */
async function checkWishes(host: Host): Promise<Draft[]> {
  if (ownFiles(host, host.absolute(host.config)).length === 0) return [];
  const { seen } = await hostWishes(host, true);
  const drafts = seen.flatMap(({ match: { wish, device }, why }): Draft[] => {
    const what = wish.kind === 'pf' ? 'vfs' : 'driver';
    const other = device === null ? undefined : othersOf(host, device).find((o) => o.what === what);
    if (other !== undefined)
      return [
        finding('wish-contested', wishPlace(wish), `${device?.address}: ${otherText(other)}`, [
          commandFix(`hostdev wish remove ${wish.address}`, `or take line ${other.line} out of /${other.file}`),
        ]),
      ];
    if (why === null) return [];
    const fix = commandFix(
      device === null ? `hostdev wish remove ${wish.address}` : 'hostdev boot apply',
      device === null ? 'where the device is not to come back' : "'hostdev boot status' says what the boot made of it",
    );
    return [finding('wish-not-met', wishPlace(wish), `${device?.address ?? wish.address}: ${why}`, [fix])];
  });
  if (seen.length > 0 && isOff(host))
    drafts.push(
      finding('boot-off', `/${host.cmdline}`, 'hostdev.off=1: no wish was fulfilled at this boot', [
        { cmdline: { add: [], remove: ['hostdev.off=1'], replace: [] } },
      ]),
    );
  return drafts;
}

/** What keeps hostdev's own configuration from being used, as `config check` says it; no files, nothing to say. */
async function checkConfiguration(host: Host): Promise<Draft[]> {
  if (ownFiles(host, host.absolute(host.config)).length === 0) return [];
  const tell = (hint: string | null): Fix => commandFix('hostdev config check', hint ?? 'tells every mistake');
  try {
    const { mistakes } = await checkConfig(host, { config: [], inventory: null });
    return mistakes.map((m) =>
      finding(
        m.fatal ? 'config-invalid' : 'config-mistake',
        m.object || host.absolute(host.config),
        m.cause,
        m.corrected === null ? [tell(m.hint)] : m.fix,
      ),
    );
  } catch (e) {
    // Whoever may not read it has not measured it; else the hook finds no more than we do.
    if (!(e instanceof HostdevError) || e.code === 'HOSTDEV_NOT_PERMITTED') throw e;
    return [finding('config-invalid', host.absolute(host.config), e.message, [tell(e.hint)])];
  }
}
