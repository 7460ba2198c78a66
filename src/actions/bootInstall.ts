/**
 * `boot install|remove|refresh`: the table for the initramfs, and the images that carry it. The table goes first, and
 * durably: an image that is made by anybody after that has it. Whether an image has it is seen by looking into it.
 */
import { mayChange, observing } from '../binding/session.ts';
import { type EarlyPlan, type LeftOut, mustGo, planEarly } from '../boot/early.ts';
import { type Image, images, look, type Maker, type SeenImage } from '../boot/images.ts';
import { makeImage } from '../boot/makeImage.ts';
import { type ReadTable, readTable, saysTheSame, tableText } from '../boot/table.ts';
import { HostdevError } from '../errors.ts';
import { fileFacts } from '../host/files.ts';
import type { Host } from '../host/host.ts';
import { initramfsMakers } from '../host/initramfsMakers.ts';
import { onHostDriver } from '../pci/vendorVfio.ts';
import { readPlain, removeFile, replaceFile } from '../store/files.ts';
import { Deadline, takeLocks } from '../store/locks.ts';
import { type Warning, warning } from '../text/warning.ts';
import type { ActionOptions, Warned } from './options.ts';
import { hostWishes } from './wishes.ts';

/** A device that the initramfs takes. */
type TableEntry = { address: string; path: string; driver: string };

export type BootPart = Warned & {
  changed: boolean;
  /** The table as it is now, or would be; null where there is none. */
  table: { file: string; hash: string; devices: TableEntry[] } | null;
  /** What has a wish and is left to the real root, with the reason. */
  left: { address: string; guard: string | null; reason: string }[];
  images: { file: string; release: string; maker: Maker; made: boolean; seconds: number | null }[];
};

/** Told before each image: it takes half a minute and more. */
export type Tell = (line: string) => void;

/** How long another process may be at the same, in ms: making the images of several kernels takes minutes. */
const WAIT_MS = 600_000;
/** Time for the looks at the host, in ms. */
const LOOK_MS = 10_000;

/**
 * Writes the table and makes the images anew that have it not. Raises HOSTDEV_INITRAMFS_MAKER for what is not handled,
 * HOSTDEV_INITRAMFS for an image that could not be made, and as {@link mayChange} does.
 */
export const installBoot = (host: Host, options: ActionOptions, tell: Tell): Promise<BootPart> =>
  alone(host, options, () => bring(host, options, tell, true));

/**
 * {@link installBoot}, where it was installed. `guardsOnly`: only where a device of the table must be out of it, as a
 * timer asks. Raises HOSTDEV_BOOT_NOT_INSTALLED, and as installBoot does.
 */
export async function refreshBoot(
  host: Host,
  options: ActionOptions,
  tell: Tell,
  guardsOnly: boolean,
): Promise<BootPart> {
  const text = tableNow(host);
  if (text === null)
    throw new HostdevError('HOSTDEV_BOOT_NOT_INSTALLED', `${host.absolute(host.bootTable)} is not there`);
  if (guardsOnly) {
    const gone = await nowKept(host);
    if (gone.length === 0)
      return { changed: false, ...shown(host, readTable(text)), left: [], images: [], warnings: [] };
    for (const { address, reason } of gone) {
      const line = `${address} is to be bound by the initramfs, and ${reason}: the table is made anew without it`;
      tell(line);
      if (host.isReal) host.native.systemLog(host.systemLog, line);
    }
  }
  const done = await alone(host, options, () => bring(host, options, tell, false));
  if (done.changed && host.isReal && !options.dryRun)
    host.native.systemLog(host.systemLog, 'The table of the initramfs was refreshed: the next boot goes by it');
  return done;
}

/** Takes the table away and makes the images anew that have one. Raises as {@link installBoot}. */
export const removeBoot = (host: Host, options: ActionOptions, tell: Tell): Promise<BootPart> =>
  alone(host, options, async () => {
    const had = tableNow(host) !== null;
    if (had && !options.dryRun) removeFile(host, host.bootTable);
    const done = await makeAll(host, options, tell, null);
    return { changed: had || done.images.some((i) => i.made), table: null, left: [], ...done };
  });

/** One at a time; a dry run changes nothing and waits for nobody. */
async function alone(host: Host, { dryRun }: ActionOptions, body: () => Promise<BootPart>): Promise<BootPart> {
  if (dryRun) return body();
  mayChange(host);
  const unlock = await takeLocks(host, ['initramfs'], new Deadline(WAIT_MS));
  try {
    return await body();
  } finally {
    unlock();
  }
}

/** What the table would be now. */
export async function earlyPlan(host: Host): Promise<EarlyPlan> {
  const { inventory, seen } = await hostWishes(host, true);
  return observing(host, { deadlineMs: LOOK_MS }, (work) =>
    planEarly(
      work,
      inventory,
      seen.map((s) => s.match),
    ),
  );
}

/**
 * Devices of the table that the host has come to stand on since it was written. Costs next to nothing where they are on
 * VFIO, as they should be.
 */
export async function nowKept(host: Host): Promise<LeftOut[]> {
  const read = installedTable(host);
  if (read === null || typeof read === 'string') return [];
  const onHost = read.devices.filter(({ address }) =>
    onHostDriver(host, address, host.linkName(host.device(address, 'driver'))),
  );
  if (onHost.length === 0) return [];
  return mustGo(await earlyPlan(host), new Set(onHost.map((d) => d.address)));
}

/** The table that is installed; a text in place of it says why it is none, null where there is none. */
export function installedTable(host: Host): ReadTable | string | null {
  const text = tableNow(host);
  return text === null ? null : readTable(text);
}

const tableNow = (host: Host): string | null => readPlain(host, host.bootTable)?.toString('latin1') ?? null;

async function bring(host: Host, options: ActionOptions, tell: Tell, asked: boolean): Promise<BootPart> {
  const plan = await earlyPlan(host);
  const before = tableNow(host);
  const read = before === null ? 'is not there' : readTable(before);
  const same = typeof read !== 'string' && saysTheSame(plan.table, read);
  const text = same && before !== null ? before : tableText(plan.table);
  if (asked) refuseUncalled(host);
  if (!same && !options.dryRun) replaceFile(host, host.bootTable, text, { durable: true });
  const done = await makeAll(host, options, tell, (readTable(text) as ReadTable).hash);
  return {
    changed: !same || done.images.some((i) => i.made),
    ...shown(host, readTable(text)),
    left: plan.left.map(({ address, guard, reason }) => ({ address, guard, reason })),
    ...done,
  };
}

const shown = (host: Host, read: ReadTable | string): Pick<BootPart, 'table'> => ({
  table:
    typeof read === 'string' ? null : { file: host.absolute(host.bootTable), hash: read.hash, devices: read.devices },
});

/**
 * Makes each image anew in which not the table of that hash is (null: any). Raises HOSTDEV_INITRAMFS, naming what was
 * made before.
 */
async function makeAll(
  host: Host,
  options: ActionOptions,
  tell: Tell,
  hash: string | null,
): Promise<Pick<BootPart, 'images' | 'warnings'>> {
  const warnings: Warning[] = [];
  const all: BootPart['images'] = [];
  const found = images(host);
  if (found.length === 0)
    warnings.push(warning('initramfs', `there is no initramfs in ${host.absolute(host.bootFolder)}: nothing was made`));
  for (const [n, image] of found.entries()) {
    const seen = await look(host, image);
    const maker = makerFor(host, seen);
    const row = { file: host.absolute(image.file), release: image.release, maker, made: false, seconds: null };
    const current = seen.problem === null && seen.hash === hash;
    if (!current && !host.isReal)
      warnings.push(warning('initramfs', `${row.file} is made on the machine itself only: it has not this table`));
    if (current || !host.isReal || options.dryRun) {
      all.push({ ...row, made: !current && host.isReal });
      continue;
    }
    tell(`Making ${row.file} anew with ${maker} (${n + 1} of ${found.length}; 30 to 100 seconds)`);
    const from = performance.now();
    await makeImage(host, image, maker);
    await checkMade(host, image, maker, hash);
    all.push({ ...row, made: true, seconds: Math.round((performance.now() - from) / 1000) });
  }
  return { images: all, warnings };
}

async function checkMade(host: Host, image: Image, maker: Maker, hash: string | null): Promise<void> {
  const { hash: now, problem } = await look(host, image);
  if (problem === null && now === hash) return;
  const hooks = host.initramfsHooks[maker];
  throw new HostdevError(
    'HOSTDEV_INITRAMFS',
    `${host.absolute(image.file)} was made, and ${problem ?? (now === null ? 'the table is not in it' : 'another table is in it')}`,
    {
      hint: hooks.some((h) => host.read(h, MAX_HOOK) !== null)
        ? `Run ${maker}'s command by hand and read what it says of hostdev.`
        : `${hooks.map((h) => host.absolute(h)).join(' or ')} is not there: the package brings it.`,
    },
  );
}

const MAX_HOOK = 64 * 1024;

/**
 * Where no maker would call us half a minute and a table would be for nothing: an npm package alone (it brings no
 * guard's timer either, without which nothing may be bound so early). Raises HOSTDEV_INITRAMFS_MAKER.
 */
function refuseUncalled(host: Host): void {
  const hooks = makers(host).flatMap((maker) => host.initramfsHooks[maker]);
  const has = (file: string): boolean => fileFacts(host, file) !== null;
  const missing = [
    ...(hooks.some(has) ? [] : [hooks.map((h) => host.absolute(h)).join(' or ')]),
    ...(has(host.initramfsProgram) ? [] : [host.absolute(host.initramfsProgram)]),
  ];
  if (missing.length === 0) return;
  throw new HostdevError(
    'HOSTDEV_INITRAMFS_MAKER',
    `What makes the initramfs would not call hostdev: ${missing.join(', and ')} is not there`,
    {
      hint: 'The Debian package brings it, and the units that keep the table right; the npm package does not.',
    },
  );
}

/** Those that we know to be asked for on this host. Raises HOSTDEV_INITRAMFS_MAKER where none is. */
function makers(host: Host): Maker[] {
  const here = initramfsMakers((file) => fileFacts(host, file) !== null).map((m) => m.name);
  const known = (['initramfs-tools', 'dracut'] as const).filter((m) => here.includes(m));
  if (known.length > 0 && !isUki(host)) return known;
  throw new HostdevError(
    'HOSTDEV_INITRAMFS_MAKER',
    isUki(host)
      ? 'This host boots unified kernel images (etc/kernel/install.conf), which hostdev does not make'
      : `What makes the initramfs here is ${here.join(', ') || 'not known'}: hostdev knows initramfs-tools and dracut`,
  );
}

/** kernel-install(8): one file with kernel, initramfs and command line, perhaps signed. */
const isUki = (host: Host): boolean => /^\s*layout\s*=\s*uki\b/m.test(host.read('etc/kernel/install.conf') ?? '');

/** By what made the image that is there, else by what is installed. */
function makerFor(host: Host, { maker }: SeenImage): Maker {
  const known = makers(host);
  if (maker !== null && known.includes(maker)) return maker;
  return known[0] as Maker;
}
