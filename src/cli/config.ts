import { checkConfig } from '../actions/configCheck.ts';
import { type Finding, placeText } from '../config/place.ts';
import { EXIT } from '../errors.ts';
import { safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { setupOptions } from './setupInput.ts';
import { colours, table } from './table.ts';

/** `hostdev config check`: exit 3 when there is a mistake; what is only worth knowing is 0. */
export async function configCheck(invocation: Invocation): Promise<Answer> {
  const { warnings, ...checked } = await checkConfig(invocation.host, await setupOptions(invocation));
  const { mistakes, remarks, specs, files } = checked;
  const { bad, warn } = colours(process.stdout);
  const lines = (findings: readonly Finding[], word: string): string =>
    findings.map((f) => findingText(f, word)).join('');
  const rows = specs.map((s) => [
    s.key,
    safeBlock(`${s.file}:${s.line}`),
    `${s.devices.length}`,
    `${s.devices.slice(0, LISTED).join(' ')}${s.devices.length > LISTED ? ' …' : ''}`,
  ]);
  const aliases = checked.aliases.map((a) => [
    safeBlock(a.name),
    safeBlock(`${a.file}:${a.line}`),
    a.devices === null ? '-' : `${a.devices}`,
  ]);
  const wishes = checked.wishes.map((w) => [
    w.key,
    safeBlock(`${w.file}:${w.line}`),
    w.address ?? '-',
    w.met === null ? '-' : w.met ? 'yes' : 'no',
  ]);
  const verdict =
    files.length === 0
      ? 'There is no configuration: nothing may be given out'
      : mistakes.length > 0
        ? `${mistakes.length} ${mistakes.length === 1 ? 'mistake' : 'mistakes'}`
        : 'No mistakes';
  return {
    json: checked,
    text: `${lines(mistakes, bad('error'))}${lines(remarks, warn('warning'))}${table(['SPEC', 'WHERE', 'TAKES', 'DEVICES'], rows)}${table(['ALIAS', 'WHERE', 'FINDS'], aliases)}${table(['WISH', 'WHERE', 'DEVICE', 'MET'], wishes)}${verdict}\n`,
    warnings,
    exit: mistakes.length > 0 ? EXIT.no : EXIT.done,
  };
}

/** How many devices of a spec are listed; -j has all. */
const LISTED = 6;

/** As compilers write it: place, what, and indented below what to do. */
export function findingText(f: Finding, word: string): string {
  const place = placeText(f);
  const more = [f.hint, f.corrected === null ? null : `Write: ${f.corrected}`].filter((t) => t !== null);
  return `${safeBlock(place)}${place === '' ? '' : ': '}${word}: ${safeBlock(f.message)}\n${more.map((t) => `    ${safeBlock(t).replace(/\n/g, '\n    ')}\n`).join('')}`;
}
