/** The recorded verdicts in test/data/viommu: what judge.sh printed, one line a domain. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What one libvirt said: per domain its fingerprint, and null or the error. */
export type Verdicts = {
  libvirt: string;
  qemu: string;
  /** "qemu" runs libvirt's parser, its validators and those of its QEMU driver; "test" has no QEMU. */
  driver: 'qemu' | 'test';
  verdicts: Record<string, [fingerprint: string, error: string | null]>;
};

const VERDICTS_DIR = join(import.meta.dirname, '../data/viommu');

/** The judges whose verdicts are recorded, in order of their files. */
export const recordedVerdicts = (): Verdicts[] =>
  readdirSync(VERDICTS_DIR)
    .filter((f) => /^verdicts-.*\.json$/.test(f))
    .sort()
    .map((f) => JSON.parse(readFileSync(join(VERDICTS_DIR, f), 'utf8')) as Verdicts);

/**
 * What is neither of a vIOMMU nor of a host device: the number of vCPUs, the machine, features; and words of elements
 * that are not ours.
 */
const OTHERS =
  /Maximum CPUs greater than|does not support machine type|feature is not supported for architecture|Extra element (features|vcpu) in interleave/;
export const isOthers = (error: string | null): boolean => error !== null && OTHERS.test(error);
