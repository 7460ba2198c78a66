/**
 * The ways in which a person, or libvirt, comes upon what a killed hostdev left; and what must be so afterwards,
 * whichever it was.
 */

import { expect } from 'vitest';
import { NOT_ASKED } from '../../src/actions/inGuest.ts';
import { finishJournal } from '../../src/actions/journal.ts';
import { fixStatus } from '../../src/actions/statusFix.ts';
import { readBooks } from '../../src/binding/books.ts';
import { readDomainDevices } from '../../src/domain/hostDevices.ts';
import { readDomain } from '../../src/domain/xml/domain.ts';
import { prepareDomain } from '../../src/hook/prepare.ts';
import { releaseDomain } from '../../src/hook/release.ts';
import type { Host } from '../../src/host/host.ts';
import { domainXml, NO_POLICY, UUID_B } from '../mock/hosts.ts';
import { EVER } from '../patience.ts';
import type { SimHost } from './simhost.ts';
import {
  again,
  type BookText,
  booksAgainst,
  bookText,
  journalled,
  type Kind,
  type Snapshot,
  snapshot,
} from './world.ts';

export const WAYS = ['next command', 'hook', 'status --fix', 'journal undo', 'journal resume'] as const;
export type Way = (typeof WAYS)[number];

const OPTIONS = { allowed: new Set<never>(), deadlineMs: EVER, dryRun: false };

const guestOf = (kind: Kind): Uint8Array =>
  domainXml(
    'other',
    UUID_B,
    kind.devices.map((address) => ({ address })),
  );

/** Comes that way, in this process. What it refuses is its answer, no failure. */
export async function come(way: Way, kind: Kind, host: Host): Promise<void> {
  switch (way) {
    case 'next command':
      return again(kind, host);
    case 'status --fix':
      await fixStatus(host, OPTIONS, NOT_ASKED);
      return;
    case 'journal undo':
    case 'journal resume':
      await finishJournal(host, [], way === 'journal undo' ? 'undo' : 'resume', OPTIONS);
      return;
    case 'hook': {
      const domain = readDomainDevices(readDomain(guestOf(kind), 'domain other'));
      await prepareDomain(host, domain, new Set(), OPTIONS, NO_POLICY).catch((e: Error & { exit?: number }) => {
        if (e.exit !== 5 && e.exit !== 3) throw e;
      });
      await releaseDomain(host, `domain:${UUID_B}`, kind.devices, OPTIONS);
    }
  }
}

/** The same as words of the command line, with its stdin. */
export const wordsOf = (way: Way, kind: Kind): { args: string[]; input: string } =>
  way === 'next command'
    ? { args: kind.command, input: kind.input ?? '' }
    : way === 'hook'
      ? { args: ['hook', 'run', 'other', 'prepare', 'begin', '-'], input: guestOf(kind).toString() }
      : { args: way.split(' '), input: '' };

export type Facts = {
  changes: string[];
  original: Snapshot;
  before: Snapshot;
  after: Snapshot;
  booksBefore: BookText;
  booksAfter: BookText;
};

/** All as before the command or all as after it, the books as the kernel, the journal empty; which of the two it is. */
export function expectWhole(sim: SimHost, host: Host, facts: Facts): 'before' | 'after' {
  expect(journalled(host).entries.map((e) => [e.id, e.left])).toEqual([]);
  expect(booksAgainst(sim, host)).toEqual([]);
  const now = { kernel: snapshot(sim), books: bookText(host) };
  const before = { kernel: facts.before, books: facts.booksBefore };
  const after = { kernel: facts.after, books: facts.booksAfter };
  const side = JSON.stringify(now) === JSON.stringify(before) ? 'before' : 'after';
  expect(now).toEqual(side === 'before' ? before : after);
  // What was there before is in the books once and stays.
  for (const b of readBooks(host).books) expect(b.before.driver ?? '', b.address).not.toContain('vfio');
  return side;
}
