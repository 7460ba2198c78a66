/** Books as another hostdev wrote them. */
import { type Binding, type Hold, newBinding, writeBinding } from '../../src/binding/books.ts';
import type { DeviceState } from '../../src/binding/state.ts';
import type { Host } from '../../src/host/host.ts';

/** A guest that was prepared just now, or the admin. */
export const holdOf = (owner: Hold['owner'], name: string | null = null, managed = false): Hold => ({
  owner,
  name,
  managed,
  libvirt: null,
});

/** Writes a binding with one hold and returns it. */
export function book(
  host: Host,
  address: string,
  group: number,
  hold: Hold,
  before: DeviceState,
  after: DeviceState | null,
): Binding {
  const binding = newBinding(host, address, group, hold, before, after);
  writeBinding(host, binding);
  return binding;
}
