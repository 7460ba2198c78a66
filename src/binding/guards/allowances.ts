/** `[[allow]]` of hostdev.toml: which guards an admin has lifted beforehand, for a device and a domain. */
import type { Hold } from '../books.ts';
import { type Allowance, type Guard, isGuard } from '../guards.ts';

/**
 * The guards that the allowances lift for the device at `address` when `hold` (owner "domain:<uuid>" in lower case, the
 * domain's name) takes it. A guard that does not exist lifts nothing: the reader of the file has refused it already.
 */
export function liftedFor(
  allowances: readonly Allowance[],
  address: string,
  hold: Pick<Hold, 'owner' | 'name'>,
): ReadonlySet<Guard> {
  const fits = ({ device, domain }: Allowance): boolean =>
    device === address && (domain === '*' || domain === hold.name || `domain:${domain.toLowerCase()}` === hold.owner);
  return new Set(
    allowances
      .filter(fits)
      .map((a) => a.guard)
      .filter(isGuard),
  );
}
