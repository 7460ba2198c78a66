/**
 * A change of driver as data: from one state of a device to another, and the sysfs writes between. Bind, give-back and undo are all moves, so there is one
 * set of steps to get right, and the inverse of any move, done or half done, is the move from what is observed to what was recorded.
 */
import type { Host } from '../host/host.ts';
import type { Address } from '../pci/address.ts';
import { emptySteps, type SriovChange } from './sriov.ts';

/** What we change of a device. `override` null is an unset driver_override, `driver` null a device without a driver. */
export type DeviceState = { driver: string | null; override: string | null };

export type Move = {
  address: Address;
  group: number | null;
  from: DeviceState;
  to: DeviceState;
  /** Of a PF whose VFs change with it. */
  sriov?: SriovChange;
};

export type Write = { path: string; value: string };

/** One sysfs write with what must be seen after it and the writes that take it back. */
export type Step = Write & {
  kind: 'override' | 'unbind' | 'probe' | 'numvfs' | 'autoprobe';
  address: Address;
  /** The override, the driver, or the number, that must be read afterwards. */
  expect: string | null;
  undo: Write[];
};

/** Newline clears: a write(2) of no bytes never reaches the attribute (drivers/base/driver.c driver_set_override). */
const overrideText = (override: string | null): string => `${override ?? ''}\n`;

/**
 * The steps of several moves, in the order that leaves no window: every override first, then every unbind, then every probe, so that no event in
 * between brings a peer back to its host driver; the overrides that were only needed for the probe are put right at the end.
 * A device that is to be driverless is unbound and not probed. The VFs of a PF go before anything else; new ones are no steps of it, because only their being
 * there tells their addresses (vfs.ts settlePf).
 */
export function stepsOf(host: Host, moves: readonly Move[]): Step[] {
  const pin: Step[] = [];
  const unbind: Step[] = [];
  const probe: Step[] = [];
  const restore: Step[] = [];
  const empty: Step[] = [];
  for (const { address, from, to, sriov } of moves) {
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
    if (rebinds && to.driver !== null) {
      probe.push({
        kind: 'probe',
        address,
        path: host.driversProbe,
        value: address,
        expect: to.driver,
        undo: [{ path: host.driver(to.driver, 'unbind'), value: address }],
      });
    }
    setOverride(restore, to.override);
  }
  return [...empty, ...pin, ...unbind, ...probe, ...restore];
}

export const sameState = (a: DeviceState, b: DeviceState): boolean =>
  a.driver === b.driver && a.override === b.override;

/** For messages: "igbvf", "no driver", "igbvf (override vfio-pci)". */
export const describeState = (s: DeviceState): string =>
  `${s.driver ?? 'no driver'}${s.override === null ? '' : ` (override ${s.override})`}`;
