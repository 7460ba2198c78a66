/** The journal that a dead writer (pid 1 is never a hostdev) left behind. */

import { type JournalEntry, writeJournal } from '../../src/binding/journal.ts';
import type { Host } from '../../src/host/host.ts';

export const leaveJournal = (
  host: Host,
  devices: JournalEntry['devices'],
  more: Partial<Pick<JournalEntry, 'id' | 'kind'>> = {},
): void =>
  writeJournal(host, {
    schema: 1,
    id: 'x-1-1',
    kind: 'bind',
    owner: 'admin',
    pid: 1,
    started: '',
    state: 'intent',
    left: [],
    devices,
    ...more,
  });
