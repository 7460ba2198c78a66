/** The journal that a dead writer left behind. */
import { type Change, newEntry, writeJournal } from '../../src/binding/journal.ts';
import type { Move } from '../../src/binding/state.ts';
import type { Host } from '../../src/host/host.ts';

type Left = Omit<Move, 'inode'> & { inode?: string | null };

export const leaveJournal = (
  host: Host,
  devices: readonly Left[],
  more: Partial<Change> & { id?: string } = {},
): void =>
  writeJournal(host, {
    ...newEntry(host, {
      kind: 'bind',
      owner: 'admin',
      devices: devices.map((d) => ({ inode: null, ...d })),
      books: [],
      ...more,
    }),
    id: more.id ?? 'x-1-1',
  });
