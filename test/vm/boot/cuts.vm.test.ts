/**
 * The power goes while the boot's pass over the wishes runs, while the initramfs is made anew for us, and while a
 * kernel's upgrade makes it, 20 times together: every boot after that ends in the wished state.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, expect, test } from 'vitest';
import { EVER } from '../../patience.ts';
import { skipped } from '../suite.ts';
import { drivers, told, useBed } from './suite.ts';

const CUTS = Number(process.env.HOSTDEV_VM_CUTS ?? 20);
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

/** How long what is cut takes, in ms. */
const lasts = { apply: 0, refresh: 0, upgrade: 0 };
type Kind = keyof typeof lasts;

/** Words that come to the console when a command has ended. */
const OVER = 'it-is-over';
/** What is cut in a machine that runs: the table made anew with its image; the image, as a kernel's upgrade does. */
const COMMANDS = {
  refresh: `hostdev wish list | grep -q 24:00.0 && hostdev wish remove 0000:24:00.0 || hostdev wish add 0000:24:00.0; hostdev boot refresh`,
  upgrade: 'update-initramfs -u -k $(uname -r)',
};
const start = (kind: 'refresh' | 'upgrade'): Promise<string> =>
  bed().vm.ok(`systemd-run -q --no-block sh -c '${COMMANDS[kind]}; echo ${OVER} > /dev/ttyS0'`);

beforeAll(async () => {
  if (skipped) return;
  await bed().boot();
  process.stderr.write(`${await bed().vm.ok('hostdev boot install', { timeoutMs: EVER })}\n`);
  await bed().shutdown();
  lasts.apply = took;
  for (const kind of ['refresh', 'upgrade'] as const) {
    await bed().boot();
    const begin = Date.now();
    await start(kind);
    await bed().heard(OVER);
    lasts[kind] = Date.now() - begin;
    await bed().powerCut();
  }
  process.stderr.write(`to be cut, ms: ${JSON.stringify(lasts)}\n`);
});

const KINDS: readonly Kind[] = ['refresh', 'apply', 'upgrade'];

test.each(Array.from({ length: CUTS }, (_, n) => [n, KINDS[n % 3] as Kind] as const))(
  'cut %i, during %s: the next boot ends in the wished state',
  async (n, kind) => {
    const at = (lasts[kind] * (n + 0.5)) / CUTS;
    if (kind === 'apply') {
      await bed().powerOn();
      await bed().heard('apply-begins');
    } else {
      await bed().boot();
      await start(kind);
    }
    await sleep(at);
    const over = bed().console.includes(kind === 'apply' ? 'apply-is-over' : OVER);
    await bed().powerCut();
    process.stderr.write(`cut ${n}: ${Math.round(at)} ms into ${kind}${over ? ', it was over' : ''}\n`);
    await bed().boot();
    await bed().vm.ok(
      "until systemctl show -P ActiveState hostdev-boot | grep -qxE 'active|failed'; do sleep 1; done",
      { timeoutMs: EVER },
    );
    expect((await told(bed())).filter((w) => !w.met)).toEqual([]);
    expect(await drivers(bed(), Object.keys(WISHED))).toEqual(WISHED);
    expect(await bed().vm.ok('ls /run/hostdev/journal')).toBe('');
    // The next start is a cut's too: that the power goes at any moment is the point.
    await bed().powerCut();
  },
);
