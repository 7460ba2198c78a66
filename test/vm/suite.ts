/** What a test file of the VM suite begins with. */
import { afterAll, beforeAll } from 'vitest';
import { type Machine, type MachineOptions, startMachine } from './machine.ts';
import type { Profile } from './topology.ts';

/** True when HOSTDEV_VM=skip: every test is then reported as skipped (see setup.ts). */
export const skipped = process.env.HOSTDEV_VM === 'skip';

/**
 * Boots one machine for the whole file and stops it at the end. Gives a function, for there is no machine yet when
 * the file is read: `const vm = useMachine('intel')`, then `await vm().ok('uname -r')`.
 */
export function useMachine(profile: Profile, options: Omit<MachineOptions, 'profile'> = {}): () => Machine {
  let machine: Machine | undefined;
  beforeAll(async () => {
    if (skipped) return;
    machine = await startMachine({ ...options, profile });
    // ssh answers a little before the last unit is up.
    await machine.ok('systemctl is-system-running --wait || :; udevadm settle');
  });
  afterAll(async () => {
    await machine?.stop();
  });
  return () => {
    if (!machine) throw new Error('there is no machine before beforeAll has run');
    return machine;
  };
}
