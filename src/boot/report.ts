/** run/hostdev/boot.json: what a boot made of each wish. It is of this kernel's life; a soft reboot keeps both. */
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type Address, canonicalAddress } from '../pci/address.ts';
import { readJson, writeJson } from '../store/files.ts';
import { isObject, isTextOrNull } from '../text/json.ts';
import { subjectOf, type Wish } from './wishes.ts';

/**
 * What met a wish: the boot's one pass over all of them, the driver that came to a PF, the device that was plugged in
 * later, or whoever had done so before. The initramfs will have its place here.
 */
export const STAGES = ['apply', 'pf', 'added', 'before'] as const;
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

export type BootReport = {
  schema: 1;
  boot: string | null;
  /** When the last pass ended. */
  at: string;
  /** `hostdev.off=1` was on the kernel command line. */
  off: boolean;
  wishes: WishReport[];
};

/** True when the kernel command line says hostdev.off=1: nothing is done at boot (contract 11). */
export const isOff = (host: Host): boolean =>
  (host.read(host.cmdline, MAX_CMDLINE) ?? '').split(/\s+/).includes('hostdev.off=1');

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
  return isReport(value) && value.boot === host.boot ? value : null;
}

const isReport = (v: unknown): v is BootReport =>
  isObject(v) &&
  v.schema === 1 &&
  isTextOrNull(v.boot) &&
  typeof v.at === 'string' &&
  typeof v.off === 'boolean' &&
  Array.isArray(v.wishes) &&
  v.wishes.every(isWishReport);

const isWishReport = (v: unknown): v is WishReport =>
  isObject(v) &&
  typeof v.subject === 'string' &&
  (v.kind === 'device' || v.kind === 'pf') &&
  typeof v.wished_address === 'string' &&
  typeof v.file === 'string' &&
  typeof v.line === 'number' &&
  (v.address === null || (typeof v.address === 'string' && canonicalAddress(v.address) === v.address)) &&
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
  const met = why === null;
  const known = done === null && was !== undefined;
  return {
    subject,
    kind: wish.kind,
    wished_address: wish.address,
    file: wish.place.file,
    line: wish.place.line,
    address,
    met,
    stage: !met ? null : known ? was.stage : (done ?? 'before'),
    at: !met ? null : known ? was.at : at,
    reason: why,
  };
}
