/** The two files that the commands over pools are given. */
import type { SetupOptions } from '../actions/pciSetup.ts';
import type { Invocation } from './command.ts';
import { MAX_INPUT, readInput } from './input.ts';

/** Reads `--inventory` (stdin: -); the configuration's files are the action's to find. Raises HOSTDEV_FILE_ABSENT or HOSTDEV_NOT_PERMITTED. */
export async function setupOptions({ config, inventory }: Invocation): Promise<SetupOptions> {
  if (inventory === null) return { config, inventory: null };
  const file = inventory === '-' ? 'stdin' : inventory;
  return { config, inventory: { bytes: await readInput(inventory), file, maxBytes: MAX_INPUT } };
}
