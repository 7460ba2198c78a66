import { type Applied, applyWishes } from '../actions/bootApply.ts';
import { type BootPart, installBoot, refreshBoot, removeBoot, type Tell } from '../actions/bootInstall.ts';
import { readBootStatus } from '../actions/bootStatus.ts';
import type { WishReport } from '../boot/report.ts';
import { EXIT, HostdevError } from '../errors.ts';
import { quote, safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { findingText } from './config.ts';
import { err } from './output.ts';
import { colours, table } from './table.ts';
import { vitalLines } from './vitalLines.ts';

/** The units give 30 s; what is left of them is for an undo and the start of node. A slow host's drop-in says more. */
const APPLY_S = 25;

/**
 * `hostdev boot apply [--device ADDRESS] [--stage apply|pf|added] [--seconds N]`: exit 3 when a wish is not met
 * afterwards.
 */
export async function bootApply({ host, own, options }: Invocation): Promise<Answer> {
  const only = typeof own.device === 'string' ? own.device : null;
  const stage = own.stage ?? 'apply';
  if (stage !== 'apply' && stage !== 'pf' && stage !== 'added')
    throw new HostdevError('HOSTDEV_USAGE', `--stage ${quote(stage)}: there are apply, pf and added`);
  const seconds = typeof own.seconds === 'string' ? Number(own.seconds) : APPLY_S;
  if (!(seconds >= 1 && seconds <= 3600))
    throw new HostdevError('HOSTDEV_USAGE', `--seconds ${quote(own.seconds)}: 1 to 3600 is expected`);
  const { warnings, ...json } = await applyWishes(host, { only, stage }, { ...options, deadlineMs: seconds * 1000 });
  return { json, text: reportText(json, json.at), warnings, exit: exitOf(json) };
}

/** `hostdev boot status`: exit 3 when a wish is not met. */
export async function bootStatus({ host }: Invocation): Promise<Answer> {
  const { warnings, ...json } = await readBootStatus(host);
  const text = `${vitalLines(json.initramfs_vital)}${reportText(json, json.at)}`;
  return { json, text, warnings, exit: exitOf(json) };
}

/** An image takes half a minute: who waits is told. */
const tell: Tell = (line) => err(`${safeBlock(line)}\n`);

/** `hostdev boot install`: the table for the initramfs, and the images with it. */
export const bootInstall = async ({ host, options }: Invocation): Promise<Answer> =>
  partAnswer(await installBoot(host, options, tell), options.dryRun);

/** `hostdev boot refresh [--guards]`: the same, where it was installed. */
export const bootRefresh = async ({ host, own, options }: Invocation): Promise<Answer> =>
  partAnswer(await refreshBoot(host, options, tell, own.guards === true), options.dryRun);

/** `hostdev boot remove`: no table, and images without one. */
export const bootRemove = async ({ host, options }: Invocation): Promise<Answer> =>
  partAnswer(await removeBoot(host, options, tell), options.dryRun);

function partAnswer({ warnings, ...json }: BootPart, dryRun: boolean): Answer {
  const { good, warn } = colours(process.stdout);
  const made = dryRun ? 'would be made anew' : 'made anew';
  const text = [
    ...(json.table?.devices ?? []).map((d) => `${d.address}  ${good(d.driver === 'none' ? 'no driver' : d.driver)}\n`),
    ...json.left.map((l) => `${l.address}  ${warn('not in the initramfs')}: ${safeBlock(l.reason)}\n`),
    json.table === null ? 'The initramfs does nothing with devices\n' : '',
    json.table?.devices.length === 0 ? 'No wish is for the initramfs: nothing is done there\n' : '',
    ...json.images.map(
      (i) =>
        `${i.file}  ${i.made ? `${made}${i.seconds === null ? '' : ` in ${i.seconds} s`}` : 'is as it should be'}\n`,
    ),
  ].join('');
  return { json, text, warnings };
}

type Report = Pick<Applied, 'off' | 'wishes' | 'mistakes'>;

const exitOf = ({ wishes, mistakes }: Report): number =>
  mistakes.length > 0 || wishes.some((w) => !w.met) ? EXIT.no : EXIT.done;

/** How each stage is told. */
const BY: Record<NonNullable<WishReport['stage']>, string> = {
  early: 'the initramfs',
  apply: 'the boot',
  pf: "the PF's driver",
  added: 'plugged in',
  before: 'so before',
};

function reportText({ off, wishes, mistakes }: Report, at: string | null): string {
  const { bad, good, warn } = colours(process.stdout);
  const rows = wishes.map((w) => [
    w.address ?? `(${w.wished_address})`,
    w.met ? good('met') : bad('not met'),
    w.stage === null ? '-' : BY[w.stage],
    w.at ?? '-',
    safeBlock(w.reason ?? ''),
  ]);
  const head = off
    ? warn('hostdev.off=1 is on the kernel command line: nothing was done at boot\n')
    : at === null
      ? warn('The boot has applied no wishes: hostdev-boot.service did not run\n')
      : '';
  return [
    wishes.length === 0 ? '' : head,
    ...mistakes.map((f) => findingText(f, bad('error'))),
    wishes.length === 0 ? 'There are no wishes\n' : table(['DEVICE', 'WISH', 'BY', 'AT', 'WHY NOT'], rows),
  ].join('');
}
