import { IMPORTS, importWishes } from '../actions/importWishes.ts';
import { HostdevError } from '../errors.ts';
import { quote, safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { fixText } from './doctor.ts';
import { keptText } from './kept.ts';

/** `hostdev import driverctl|modprobe.d|rc.local|nova.conf [FILE] [--write]` */
export async function importCommand({ host, words, own, options }: Invocation): Promise<Answer> {
  const [word, file = null] = words;
  const kind = IMPORTS.find((k) => k === word);
  if (kind === undefined)
    throw new HostdevError('HOSTDEV_USAGE', `import ${quote(word)}: there are ${IMPORTS.join(', ')}`);
  const { warnings, ...json } = await importWishes(host, kind, file, own.write === true, options);
  const told = new Set<(typeof json.take_out)[number]>();
  const text = [
    json.wishes.length === 0 ? 'No wish comes of it\n' : safeBlock(json.toml),
    ...(json.take_out.length === 0 ? [] : ['\nTake out, so that not two do the same:\n']),
    ...json.take_out.map((f) => `${fixText(f, told)}\n`),
    ...(json.left.length === 0 ? [] : ['\nLeft:\n']),
    ...json.left.map((l) => `    ${safeBlock(l.object)}: ${safeBlock(l.reason)}\n`),
    ...(json.kept === null ? [] : ['\n', keptText(json.kept, options.dryRun)]),
  ];
  return { json, text: text.join(''), warnings };
}
