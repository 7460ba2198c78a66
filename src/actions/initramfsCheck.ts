/** What `doctor` says of the part that binds devices in the initramfs: the table, each image, and what the boot did. */
import { images, look as lookInto } from '../boot/images.ts';
import { readReport } from '../boot/report.ts';
import { saysTheSame } from '../boot/table.ts';
import { commandFix } from '../doctor/fix.ts';
import type { Look } from '../doctor/look.ts';
import { type Draft, finding } from '../doctor/table.ts';
import { earlyPlan, installedTable, nowKept } from './bootInstall.ts';

const REFRESH = (): Draft['fix'] => [commandFix('hostdev boot refresh', 'it takes 30 to 100 seconds for each kernel')];

/** Findings about the initramfs; nothing where the boot part is not installed and no image has it. */
export async function checkInitramfs(look: Look): Promise<Draft[]> {
  const { host } = look;
  const table = host.absolute(host.bootTable);
  const read = installedTable(host);
  const drafts: Draft[] = [];
  if (typeof read === 'string')
    drafts.push(finding('initramfs-stale', table, `it ${read}: nothing is done with it`, REFRESH()));
  else if (read !== null) {
    for (const { address, reason } of await nowKept(host))
      drafts.push(finding('initramfs-vital', address, reason, REFRESH()));
    if (drafts.length === 0 && !saysTheSame((await earlyPlan(host)).table, read))
      drafts.push(
        finding('initramfs-stale', table, 'the wishes, or what they mean on this host, have changed since', REFRESH()),
      );
  }
  const hash = read === null || typeof read === 'string' ? null : read.hash;
  for (const image of images(host)) {
    const seen = await lookInto(host, image);
    const file = host.absolute(image.file);
    if (seen.problem !== null) look.missed(file, seen.problem);
    else if (seen.hash !== hash)
      drafts.push(
        finding(
          'initramfs-other',
          file,
          seen.hash === null
            ? 'it has no table'
            : hash === null
              ? 'it has a table, and none is installed'
              : 'it has another table',
          hash === null ? [commandFix('hostdev boot remove')] : REFRESH(),
        ),
      );
  }
  return [...drafts, ...ofThisBoot(look)];
}

/** What the stage in the initramfs said at this boot; that it was switched off is said of the command line. */
function ofThisBoot({ host }: Look): Draft[] {
  const report = readReport(host);
  if (report === null || report.early === null || report.off) return [];
  const { problem, devices } = report.early;
  const told = commandFix('hostdev boot status', 'says what the later stages made of it');
  return [
    ...(problem === null ? [] : [finding('initramfs-failed', host.absolute(host.bootReport), problem, [told])]),
    ...devices.flatMap((d) =>
      d.reason === null ? [] : [finding('initramfs-failed', d.address ?? d.path, d.reason, [told])],
    ),
  ];
}
