/**
 * How much a verdict would print: every step lists every device with the tags of its spec, so a small scenario can ask
 * for gigabytes.
 */
import { HostdevError } from '../errors.ts';
import type { JsonValue } from '../text/json.ts';

/** JavaScript's texts end at 512 MiB. */
const MAX_PRINTED = 400 * 1024 * 1024;
/** A device in a pool, in the statuses and in Placement, without its tags. */
const BYTES_A_DEVICE = 450;

/** A step: what a refresh puts in the place of the devices and specs; the others have neither. */
type Counted = { op: string; devices?: readonly unknown[] | null; deviceSpec?: readonly JsonValue[] | null };

/** Raises HOSTDEV_SCENARIO when the verdict could be larger than 400 MiB. */
export function checkPrintable(
  deviceSpec: readonly JsonValue[],
  devices: readonly unknown[],
  steps: readonly Counted[],
): void {
  const most = steps.reduce((n, s) => Math.max(n, s.devices?.length ?? 0), devices.length);
  const specs = [...deviceSpec, ...steps.flatMap((s) => s.deviceSpec ?? [])];
  const tags = specs.reduce<number>((n, value) => Math.max(n, largestOf(value)), 0);
  if ((BYTES_A_DEVICE + tags) * most * (steps.length + 2) <= MAX_PRINTED) return;
  const message = `${most} devices with tags of up to ${tags} bytes, printed after each of ${steps.length} steps, are more than ${MAX_PRINTED >> 20} MiB`;
  throw new HostdevError('HOSTDEV_SCENARIO', message, { hint: 'Leave out devices, or split the steps.' });
}

/** The size of a spec; of a list of them, the largest one's. */
function largestOf(value: JsonValue): number {
  if (Array.isArray(value)) return value.reduce<number>((n, v) => Math.max(n, sizeOf(v)), 0);
  if (typeof value !== 'string' || !value.trimStart().startsWith('[')) return sizeOf(value);
  try {
    return largestOf(JSON.parse(value) as JsonValue);
  } catch {
    // No spec at all: there will be no devices to print.
    return 0;
  }
}

const sizeOf = (value: JsonValue): number => (typeof value === 'string' ? value.length : JSON.stringify(value).length);
