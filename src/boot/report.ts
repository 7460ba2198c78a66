/** run/hostdev/boot.json: what a boot made of each wish. It is of this kernel's life; a soft reboot keeps both. */
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type Address, canonicalAddress } from '../pci/address.ts';
import { readJson, writeJson } from '../store/files.ts';
import { isObject, isTextOrNull } from '../text/json.ts';
import { subjectOf, type Wish } from './wishes.ts';

/**
 * What met a wish: the initramfs, the boot's one pass over all of them, the driver that came to a PF, the device that
 * was plugged in later, or whoever had done so before.
 */
export const STAGES = ['early', 'apply', 'pf', 'added', 'before'] as const;
export type Stage = (typeof STAGES)[number];

export type WishReport = {
  /** What the wish is about, as one text: the same at every pass. */
  subject: string;
  kind: Wish['kind'];
  wished_address: Address;
  file: string;
  line: number;
  /** The device that was meant; null where none was. */
  address: Address | null;
  met: boolean;
  /** Of one that is met: by which stage, and when that saw it. */
  stage: Stage | null;
  at: string | null;
  /** Of one that is not: why. */
  reason: string | null;
};

/** A device of the initramfs's table, and what became of it there; `address` is null where none was in its slot. */
type EarlyDevice = {
  path: string;
  address: Address | null;
  driver: string;
  done: boolean;
  reason: string | null;
};

/** What the initramfs did (native/boot.cc). */
type EarlyReport = {
  at: string;
  /** The hash of the table that it went by; null where it could use none. */
  table: string | null;
  /** Why nothing was done at all. */
  problem: string | null;
  devices: EarlyDevice[];
};

export type BootReport = {
  schema: 1;
  boot: string | null;
  /** When the last pass ended; null where only the initramfs has been here. */
  at: string | null;
  /** `hostdev.off=1` was on the kernel command line. */
  off: boolean;
  wishes: WishReport[];
  /** Null where the initramfs did nothing, since hostdev is not in it. */
  early: EarlyReport | null;
};

/** True when the kernel command line says hostdev.off=1: nothing is done at boot (contract 11). */
export const isOff = (host: Host): boolean => cmdlineWords(host).includes('hostdev.off=1');

const cmdlineWords = (host: Host): string[] => (host.read(host.cmdline, MAX_CMDLINE) ?? '').split(/\s+/);

/** Values of the last root= and resume= of the kernel command line, as native/boot_cmdline.cc reads them. */
export function bootWords(host: Host): { root: string; resume: string } {
  const last = (key: string): string =>
    cmdlineWords(host)
      .findLast((w) => w.startsWith(key))
      ?.slice(key.length) ?? '';
  return { root: last('root='), resume: last('resume=') };
}

const MAX_CMDLINE = 64 * 1024;

/**
 * The report of this boot; null where there is none, where it is of another boot, or none of ours: it is made anew
 * then.
 */
export function readReport(host: Host): BootReport | null {
  let value: unknown;
  try {
    value = readJson(host, host.bootReport);
  } catch (e) {
    if (!(e instanceof HostdevError)) throw e;
    return null;
  }
  // What was written before the initramfs had a place in it.
  const report = isObject(value) && value.early === undefined ? { ...value, early: null } : value;
  return isReport(report) && report.boot === host.boot ? report : null;
}

const isReport = (v: unknown): v is BootReport =>
  isObject(v) &&
  v.schema === 1 &&
  isTextOrNull(v.boot) &&
  isTextOrNull(v.at) &&
  typeof v.off === 'boolean' &&
  Array.isArray(v.wishes) &&
  v.wishes.every(isWishReport) &&
  (v.early === null || isEarly(v.early));

const isAddressOrNull = (v: unknown): v is Address | null =>
  v === null || (typeof v === 'string' && canonicalAddress(v) === v);

const isEarly = (v: unknown): v is EarlyReport =>
  isObject(v) &&
  typeof v.at === 'string' &&
  isTextOrNull(v.table) &&
  isTextOrNull(v.problem) &&
  Array.isArray(v.devices) &&
  v.devices.every(
    (d) =>
      isObject(d) &&
      typeof d.path === 'string' &&
      isAddressOrNull(d.address) &&
      typeof d.driver === 'string' &&
      typeof d.done === 'boolean' &&
      isTextOrNull(d.reason),
  );

const isWishReport = (v: unknown): v is WishReport =>
  isObject(v) &&
  typeof v.subject === 'string' &&
  (v.kind === 'device' || v.kind === 'pf') &&
  typeof v.wished_address === 'string' &&
  typeof v.file === 'string' &&
  typeof v.line === 'number' &&
  isAddressOrNull(v.address) &&
  typeof v.met === 'boolean' &&
  (v.stage === null || STAGES.some((s) => s === v.stage)) &&
  isTextOrNull(v.at) &&
  isTextOrNull(v.reason);

export const writeReport = (host: Host, report: BootReport): void => writeJson(host, host.bootReport, report);

/** What is known of a wish after a pass: one that was met before stays met by whoever met it. */
export function reportOf(
  wish: Wish,
  address: Address | null,
  why: string | null,
  done: Stage | null,
  before: BootReport | null,
  at: string,
): WishReport {
  const subject = subjectOf(wish);
  const was = before?.wishes.find((w) => w.subject === subject && w.met && w.address === address);
  const early = before?.early?.devices.find((d) => d.done && d.address === address);
  const met = why === null;
  if (met && done === null && was === undefined && early !== undefined && wish.kind === 'device')
    return { ...ofWish(wish, address), met, stage: 'early', at: before?.early?.at ?? at, reason: null };
  const known = done === null && was !== undefined;
  return {
    ...ofWish(wish, address),
    met,
    stage: !met ? null : known ? was.stage : (done ?? 'before'),
    at: !met ? null : known ? was.at : at,
    reason: why,
  };
}

const ofWish = (wish: Wish, address: Address | null) => ({
  subject: subjectOf(wish),
  kind: wish.kind,
  wished_address: wish.address,
  file: wish.place.file,
  line: wish.place.line,
  address,
});
