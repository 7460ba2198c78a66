/** The power goes while the boot's pass over the wishes runs, 20 times: the next boot ends in the wished state. */
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, expect, test } from 'vitest';
import { EVER } from '../../patience.ts';
import { skipped } from '../suite.ts';
import { drivers, told, useBed } from './suite.ts';

const CUTS = 20;
const bed = useBed('intel');

const WISHED = {
  '0000:23:00.0': 'vfio-pci',
  '0000:93:00.0': 'tb_nvme_vfio_pci',
  '0000:91:00.0': 'vfio-pci',
  '0000:91:00.1': 'vfio-pci',
  '0000:21:10.0': 'tb_igbvf_vfio_pci',
  '0000:21:10.2': 'tb_igbvf_vfio_pci',
  '0000:22:00.1': 'tb_nvme_vfio_pci',
};

/** How long the unit takes, in ms, as the console tells; cuts are spread over it. */
let took = 0;

beforeAll(async () => {
  if (skipped) return;
  await bed().vm.ok(
    `set -e
    hostdev bind 0000:23:00.0 --persist
    hostdev bind 0000:93:00.0 --persist
    hostdev bind 0000:91:00.0 --group endpoints --persist
    hostdev vf create 0000:21:00.0 --count 2 --persist
    hostdev vf create 0000:22:00.0 --count 1 --persist
    mkdir -p /etc/systemd/system/hostdev-boot.service.d
    printf '[Service]\\nExecStartPre=/bin/sh -c "echo apply-begins > /dev/ttyS0"\\nExecStartPost=/bin/sh -c "echo apply-is-over > /dev/ttyS0"\\n' > /etc/systemd/system/hostdev-boot.service.d/console.conf
    sync`,
    { timeoutMs: EVER },
  );
  await bed().shutdown();
  await bed().powerOn();
  await bed().heard('apply-begins');
  const begin = Date.now();
  await bed().heard('apply-is-over');
  took = Date.now() - begin;
  await bed().powerCut();
});

test.each(Array.from({ length: CUTS }, (_, n) => n))('cut %i: the next boot ends in the wished state', async (n) => {
  await bed().powerOn();
  await bed().heard('apply-begins');
  await sleep((took * (n + 0.5)) / CUTS);
  const over = bed().console.includes('apply-is-over');
  await bed().powerCut();
  process.stderr.write(`cut ${n}: ${Math.round((took * (n + 0.5)) / CUTS)} ms into it${over ? ', it was over' : ''}\n`);
  await bed().boot();
  await bed().vm.ok("until systemctl show -P ActiveState hostdev-boot | grep -qxE 'active|failed'; do sleep 1; done", {
    timeoutMs: EVER,
  });
  expect((await told(bed())).filter((w) => !w.met)).toEqual([]);
  expect(await drivers(bed(), Object.keys(WISHED))).toEqual(WISHED);
  expect(await bed().vm.ok('ls /run/hostdev/journal')).toBe('');
  // The next start is a cut's too: that the power goes at any moment is the point.
  await bed().powerCut();
});
