/**
 * The initramfs images of this host: which there are, who made each, whether our table is in it; and what cannot be
 * handled, by name.
 */
import type { Host } from '../host/host.ts';
import { memberOf } from './cpio.ts';
import { readTable } from './table.ts';

/** Of one kernel; both paths below the root. */
export type Image = { file: string; release: string };

export type Maker = 'initramfs-tools' | 'dracut';

/** `hash`: of the table that is in it; null where there is none. `problem`: why it could not be told. */
export type SeenImage = Image & { maker: Maker | null; hash: string | null; problem: string | null };

/** Debian, Fedora, SUSE; the kernel's release is part of each name. */
const NAMES = [/^initrd\.img-(.+)$/, /^initramfs-(.+)\.img$/, /^initrd-(.+)$/];
const MAX_IMAGE = 512 * 1024 * 1024;

/** Images of the kernels that are installed, the running one first. */
export function images(host: Host): Image[] {
  const found = (host.list(host.bootFolder) ?? []).flatMap((name): Image[] => {
    const release = NAMES.flatMap((n) => n.exec(name)?.[1] ?? [])[0];
    if (release === undefined || !/^\d[\w.+~-]{0,127}$/.test(release)) return [];
    return host.moduleFiles(release, 'kernel').some((f) => host.list(f) !== null)
      ? [{ file: `${host.bootFolder}/${name}`, release }]
      : [];
  });
  const now = host.release;
  return [...found.filter((i) => i.release === now), ...found.filter((i) => i.release !== now)];
}

/** Looks into an image. Raises nothing. */
export async function look(host: Host, image: Image): Promise<SeenImage> {
  const unknown = { ...image, maker: null, hash: null };
  try {
    const bytes = host.readBytes(image.file, MAX_IMAGE);
    if (bytes === null) return { ...unknown, problem: 'it is not there' };
    const member = await memberOf(bytes, host.bootTable);
    const table = member.bytes === null ? null : readTable(member.bytes.toString('latin1'));
    return {
      ...image,
      maker: makerOf(member.names),
      hash: table === null || typeof table === 'string' ? null : table.hash,
      problem: typeof table === 'string' ? `the table in it ${table}` : null,
    };
  } catch (e) {
    return { ...unknown, problem: (e as Error).message };
  }
}

/** What only one of them puts into its images. */
const MARKS: readonly { maker: Maker; mark: RegExp }[] = [
  { maker: 'dracut', mark: /^(?:usr\/)?lib\/dracut(?:\/|$)/ },
  { maker: 'initramfs-tools', mark: /^(?:scripts\/init-top|conf\/initramfs\.conf|scripts\/functions)/ },
];

const makerOf = (names: ReadonlySet<string>): Maker | null =>
  MARKS.find(({ mark }) => [...names].some((n) => mark.test(n)))?.maker ?? null;
