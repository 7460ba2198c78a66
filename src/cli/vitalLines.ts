import type { BootVital } from '../actions/bootVital.ts';
import { safeBlock } from '../text/safe.ts';
import { colours } from './table.ts';

/** The next boot would take these from the host. */
export const vitalLines = (vital: readonly BootVital[] | null): string =>
  (vital ?? [])
    .map(({ address, reason }) =>
      colours(process.stdout).bad(
        `${address} is to be bound by the initramfs at the next boot, and ${safeBlock(reason)}: 'hostdev boot refresh' takes it out\n`,
      ),
    )
    .join('');
