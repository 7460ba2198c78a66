/** The two files that the commands over pools are given. */

import { HostdevError } from '../errors.ts';
import type { SetupOptions } from '../nova/setup.ts';
import { quote } from '../text/safe.ts';
import type { Invocation } from './command.ts';
import { MAX_INPUT, readInput } from './input.ts';

/**
 * Reads `--inventory` (stdin: -); the configuration's files are the action's to find. Raises HOSTDEV_FILE_ABSENT or
 * HOSTDEV_NOT_PERMITTED.
 */
export async function setupOptions({ config, inventory, own }: Invocation): Promise<SetupOptions> {
  const blanks = own['trait-blanks'] ?? null;
  if (blanks !== null && blanks !== 'trim' && blanks !== 'nova')
    throw new HostdevError('HOSTDEV_USAGE', `--trait-blanks ${quote(blanks)}: there are trim and nova`);
  if (inventory === null) return { config, inventory: null, traitBlanks: blanks };
  const file = inventory === '-' ? 'stdin' : inventory;
  return { config, inventory: { bytes: await readInput(inventory), file, maxBytes: MAX_INPUT }, traitBlanks: blanks };
}
