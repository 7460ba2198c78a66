/** What a file of the boot suite begins with. */
import { afterAll, beforeAll } from 'vitest';
import { EVER } from '../../patience.ts';
import { installHostdev } from '../guest.ts';
import { skipped } from '../suite.ts';
import { Bed, type Iommu, type Start } from './bed.ts';

/** A limit that an emulated machine on a busy host may reach decides nothing here: the drop-in of a slow host. */
const UNITS = {
  'hostdev-boot': '',
  'hostdev-pf@': '--stage pf --device %i ',
  'hostdev-device@': '--stage added --device %i ',
};

/**
 * One machine for the whole file, booted and with the package in it; its disk is fresh. Gives a function, for there is
 * no machine yet when the file is read: `const bed = useBed('intel')`, then `await bed().vm.ok('uname -r')`.
 */
export function useBed(iommu: Iommu, start: Start = {}): () => Bed {
  let bed: Bed | undefined;
  beforeAll(async () => {
    if (skipped) return;
    bed = await Bed.make(iommu);
    await bed.bootSettled(start);
    await installHostdev(bed.vm);
    for (const [unit, words] of Object.entries(UNITS))
      await bed.vm.write(
        `/etc/systemd/system/${unit}.service.d/patient.conf`,
        `[Service]\nTimeoutStartSec=600\nExecStart=\nExecStart=/usr/bin/hostdev boot apply ${words}--seconds 590\n`,
      );
    await bed.vm.ok('systemctl daemon-reload');
  });
  afterAll(async () => {
    await bed?.end();
  });
  return () => {
    if (!bed) throw new Error('there is no machine before beforeAll has run');
    return bed;
  };
}

/** What `hostdev boot status -j` says of a wish. */
export type Told = {
  wished_address: string;
  kind: 'device' | 'pf';
  address: string | null;
  met: boolean;
  stage: string | null;
  reason: string | null;
};

/** What the boot made of each wish. */
export async function told(bed: Bed): Promise<Told[]> {
  const { code, stdout, stderr } = await bed.vm.sh('hostdev boot status -j', { timeoutMs: EVER });
  if (code !== 0 && code !== 3) throw new Error(`boot status: exit ${code}\n${stdout}${stderr}`);
  return (JSON.parse(stdout) as { wishes: Told[] }).wishes;
}

/** Waits until every wish is met, as an admin sees it; gives the last look in any case. */
export async function allMet(bed: Bed): Promise<Told[]> {
  let last = await told(bed);
  for (const until = Date.now() + EVER; last.some((w) => !w.met) && Date.now() < until; last = await told(bed));
  return last;
}

/** The drivers of devices, as `address driver`; `-` for none, and `absent`. */
export async function drivers(bed: Bed, addresses: readonly string[]): Promise<Record<string, string>> {
  const out = await bed.vm.ok(`cd /sys/bus/pci/devices; for a in ${addresses.join(' ')}; do
    [ -e $a ] || { echo $a absent; continue; }
    [ -e $a/driver ] && echo $a $(basename $(readlink $a/driver)) || echo $a -
    done`);
  return Object.fromEntries(out.split('\n').map((line) => line.split(' ') as [string, string]));
}
