/**
 * The sysfs writes of a move, in the order that leaves no window. Pure, but for a look at a PF's link: bind, give-back
 * and undo are all moves, so there is one set of steps to get right. Rules of drivers/pci/iov.c (6.12): sriov_numvfs
 * goes from one count to another through 0 only, and every VF with its driver, override and configuration is gone then;
 * with sriov_drivers_autoprobe 0 no driver meets a fresh VF unless its driver_override names it.
 */
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { flagsOf, IFF_UP, linkForVfs } from '../pci/interfaces.ts';
import { vgpuTypeFile } from '../pci/vendorVfio.ts';
import type { Move, SriovChange, SriovState } from './state.ts';

export type Write = { path: string; value: string };

/** One sysfs write with what must be seen after it and the writes that take it back. */
export type Step = Write & {
  kind: 'override' | 'unbind' | 'probe' | 'numvfs' | 'autoprobe' | 'vgpu' | 'link';
  address: Address;
  /**
   * The override, the driver, the number, or the vGPU type, that must be read afterwards; {@link ANY_HOST} for a probe
   * whose outcome is the kernel's affair.
   */
  expect: string | null;
  undo: Write[];
};

/** No driver has this name. */
export const ANY_HOST = '*';

/** Newline clears: a write(2) of no bytes never reaches the attribute (drivers/base/driver.c driver_set_override). */
const overrideText = (override: string | null): string => `${override ?? ''}\n`;

/** What the steps of a move are made from. */
export type Way = Pick<Move, 'address' | 'from' | 'to' | 'any_host' | 'sriov' | 'vgpu'>;

/**
 * The steps of several moves: every override first, then every unbind, then every probe, so that no event in between
 * brings a peer back to its host driver; the overrides that were only needed for the probe are put right at the end. A
 * device that is to be driverless is unbound and not probed. The VFs of a PF go before anything else; new ones are no
 * steps of it, because only their being there tells their addresses (settle.ts).
 */
export function stepsOf(host: Host, moves: readonly Way[]): Step[] {
  const pin: Step[] = [];
  const unbind: Step[] = [];
  const probe: Step[] = [];
  const restore: Step[] = [];
  const empty: Step[] = [];
  const types: Step[] = [];
  for (const { address, from, to, any_host, sriov, vgpu } of moves) {
    const rebinds = from.driver !== to.driver;
    empty.push(...emptySteps(host, address, sriov, rebinds));
    let override = from.override;
    const setOverride = (list: Step[], value: string | null): void => {
      if (override === value) return;
      const path = host.device(address, 'driver_override');
      list.push({
        kind: 'override',
        address,
        path,
        value: overrideText(value),
        expect: value,
        undo: [{ path, value: overrideText(override) }],
      });
      override = value;
    };
    if (rebinds && to.driver !== null) setOverride(pin, to.driver);
    // Whatever claims it: with an override only one could.
    if (any_host) setOverride(pin, null);
    if (rebinds && from.driver !== null) {
      unbind.push({
        kind: 'unbind',
        address,
        path: host.driver(from.driver, 'unbind'),
        value: address,
        expect: null,
        undo: [
          { path: host.device(address, 'driver_override'), value: overrideText(from.driver) },
          { path: host.driversProbe, value: address },
        ],
      });
    }
    if (any_host ? to.driver === null : rebinds && to.driver !== null) {
      probe.push({
        kind: 'probe',
        address,
        path: host.driversProbe,
        value: address,
        expect: any_host ? ANY_HOST : to.driver,
        undo: to.driver === null ? [] : [{ path: host.driver(to.driver, 'unbind'), value: address }],
      });
    }
    setOverride(restore, to.override);
    if (vgpu !== undefined) types.push(...vgpuSteps(host, address, vgpu));
  }
  return [...empty, ...pin, ...unbind, ...probe, ...restore, ...types];
}

/** From one vGPU type to another through none: the driver makes no vGPU where there is one. */
function vgpuSteps(host: Host, address: Address, { from, to }: { from: string; to: string }): Step[] {
  const path = vgpuTypeFile(host, address);
  const step = (was: string, value: string): Step => ({
    kind: 'vgpu',
    address,
    path,
    value: `${value}\n`,
    expect: value,
    undo: [{ path, value: `${was}\n` }],
  });
  if (from === to) return [];
  return from === '0' || to === '0' ? [step(from, to)] : [step(from, '0'), step('0', to)];
}

/** sriov_numvfs takes the number without a line end too (kstrtou16). */
export function numvfsStep(host: Host, address: Address, value: number, was: number): Step {
  const path = host.device(address, 'sriov_numvfs');
  return { kind: 'numvfs', address, path, value: `${value}`, expect: `${value}`, undo: [{ path, value: `${was}` }] };
}

export function autoprobeStep(host: Host, address: Address, value: boolean): Step {
  const path = host.device(address, 'sriov_drivers_autoprobe');
  const text = (on: boolean): string => (on ? '1' : '0');
  return {
    kind: 'autoprobe',
    address,
    path,
    value: text(value),
    expect: text(value),
    undo: [{ path, value: text(!value) }],
  };
}

/**
 * What must be written before anything else of the PF changes: its VFs go, for another number or because its driver
 * does (`rebinds`).
 */
export function emptySteps(host: Host, address: Address, change: SriovChange | undefined, rebinds: boolean): Step[] {
  if (change === undefined || change.from.numvfs === 0) return [];
  if (change.from.numvfs === change.to.numvfs && !rebinds) return [];
  return [...upSteps(host, address), numvfsStep(host, address, 0, change.from.numvfs)];
}

/** The step that brings a PF's link up or down; null where it is so, or where its driver does not ask for it. */
export function linkStep(host: Host, address: Address, up: boolean): Step | null {
  const now = linkForVfs(host, address);
  if (now === null || now.up === up) return null;
  const path = host.classLink('net', `${now.link.name}/flags`);
  const flags = flagsOf(host, now.link.name);
  const hex = (n: number): string => `0x${n.toString(16)}\n`;
  return {
    kind: 'link',
    address,
    path,
    value: hex(up ? flags | IFF_UP : flags & ~IFF_UP),
    expect: up ? 'up' : 'down',
    undo: [{ path, value: hex(flags) }],
  };
}

/** What must be written before a number of VFs. */
export function upSteps(host: Host, address: Address): Step[] {
  const step = linkStep(host, address, true);
  return step === null ? [] : [step];
}

/**
 * What autoprobe must be while VFs are made for `vfs`: recorded and VFIO ones meet no driver but the one named for
 * them. Null where it is so already, or where the kernel has no such attribute.
 */
export function autoprobeFor({ autoprobe, vfs }: SriovState): boolean | null {
  const wanted = vfs === 'netdev';
  return autoprobe === null || autoprobe === wanted ? null : wanted;
}

/**
 * The writes that make the VFs of `change.to` once there are none, for a plan that is only shown: `foretold` are their
 * addresses and drivers as far as they can be known before the VFs are there.
 */
export function fillSteps(
  host: Host,
  address: Address,
  change: SriovChange | undefined,
  rebinds: boolean,
  foretold: readonly Step[],
): Step[] {
  if (change === undefined || change.to.numvfs === 0) return [];
  if (change.from.numvfs === change.to.numvfs && !rebinds) return [];
  const probing = autoprobeFor(change.to);
  return [
    ...(probing === null ? [] : [autoprobeStep(host, address, probing)]),
    ...(change.from.numvfs === 0 ? upSteps(host, address) : []),
    numvfsStep(host, address, change.to.numvfs, 0),
    ...foretold,
    ...(probing === null ? [] : [autoprobeStep(host, address, !probing)]),
  ];
}
