import { addWishes, checkWishes, type ListedWish, listWishes, removeWishes } from '../actions/wish.ts';
import { EXIT, HostdevError } from '../errors.ts';
import { quote, safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { findingText } from './config.ts';
import { keptText, wantOf } from './kept.ts';
import { colours, table } from './table.ts';
import { vfUse, wholeNumber } from './vf.ts';

/** `hostdev wish list` */
export async function wishList({ host }: Invocation): Promise<Answer> {
  const { warnings, ...json } = await listWishes(host);
  const { bad } = colours(process.stdout);
  const mistakes = json.mistakes.map((f) => findingText(f, bad('error'))).join('');
  return { json, text: `${mistakes}${wishTable(json.wishes, 'MET', (w) => w.met)}`, warnings };
}

/** `hostdev wish check`: exit 3 when one would not be fulfilled at a boot now. */
export async function wishCheck({ host, options }: Invocation): Promise<Answer> {
  const { warnings, ...json } = await checkWishes(host, options);
  const { bad } = colours(process.stdout);
  const mistakes = json.mistakes.map((f) => findingText(f, bad('error'))).join('');
  const wrong = json.mistakes.length > 0 || json.wishes.some((w) => w.refused);
  return {
    json,
    text: `${mistakes}${wishTable(json.wishes, 'AT BOOT', (w) => !w.refused)}`,
    warnings,
    exit: wrong ? EXIT.no : EXIT.done,
  };
}

/** `hostdev wish add [DEV…] [--spec] [--driver NAME] [--group endpoints] [--vfs N] [--for vfio|netdev]` */
export async function wishAdd({ host, words, own, options }: Invocation): Promise<Answer> {
  const spec = own.spec === true;
  if (spec === words.length > 0)
    throw new HostdevError(
      'HOSTDEV_USAGE',
      spec ? '--spec names the devices: DEV goes without it' : "'wish add' needs DEV, or --spec",
    );
  const { driver = 'vfio' } = own;
  if (own.group !== undefined && own.group !== 'endpoints')
    throw new HostdevError('HOSTDEV_USAGE', `--group ${quote(own.group)}: there is only 'endpoints'`);
  if (own.vfs === undefined && own.for !== undefined) throw new HostdevError('HOSTDEV_USAGE', '--for goes with --vfs');
  if (own.vfs !== undefined && (own.driver !== undefined || own.group !== undefined))
    throw new HostdevError('HOSTDEV_USAGE', '--vfs is about the VFs of a PF: --driver and --group go without it');
  const vfs = own.vfs === undefined ? null : { count: wholeNumber('--vfs', own.vfs), for: vfUse(own.for) };
  const wish = { driver: driver === 'auto' ? 'vfio' : String(driver), group: own.group === 'endpoints', vfs };
  const { warnings, ...json } = await addWishes(host, spec ? null : words, wish, options);
  return { json, text: keptText(json.kept, options.dryRun), warnings };
}

/** `hostdev wish remove DEV…` */
export async function wishRemove({ host, words, options }: Invocation): Promise<Answer> {
  const { warnings, ...json } = await removeWishes(host, words, options);
  return { json, text: keptText(json.kept, options.dryRun), warnings };
}

/** `question` is what `yes` answers of each; why not is said where it is no. */
function wishTable<W extends ListedWish>(wishes: readonly W[], question: string, yes: (w: W) => boolean): string {
  const { bad, good } = colours(process.stdout);
  if (wishes.length === 0) return 'There are no wishes\n';
  const rows = wishes.map((w) => [
    w.address ?? `(${w.wished_address})`,
    safeBlock(wantOf(w)),
    yes(w) ? good('yes') : bad('no'),
    safeBlock(`${w.file}:${w.line}`),
    yes(w) ? '' : safeBlock(w.reason ?? ''),
  ]);
  return table(['DEVICE', 'WISH', question, 'WHERE', 'WHY NOT'], rows);
}
