/**
 * conf.d/90-kept.toml: the wishes that hostdev writes. A person may read and edit it, so it is changed as text: a wish
 * that comes is a table at the end, one that goes takes the lines of its table along, and everything else (comments
 * outside of that table, other tables) stays byte for byte. Replaced as a whole, durably. No other file is ever
 * written.
 */
import { kindOf, readText } from '../config/readText.ts';
import { readToml, tableLines } from '../config/tomlText.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { ID_KEYS, MARKS } from '../pci/identity.ts';
import { removeFile, replaceFile } from '../store/files.ts';
import { type Deadline, takeLocks } from '../store/locks.ts';
import { type Wish, wishPlace } from './wishes.ts';

const HEAD = `# Wishes that 'hostdev bind --persist' and 'hostdev wish add' keep; docs: hostdev.toml(5). You may edit this file: hostdev adds
# tables at its end, takes out those of wishes that go, and leaves the rest as it is.
`;

/** No configuration of a person's is larger; the parser needs a second for so much. */
const MAX_BYTES = 1024 * 1024;

const text = (value: string): string => JSON.stringify(value);

/** A wish as its table. */
export function tomlOf(w: Wish): string {
  const { identity: id } = w;
  const lines = [`[[${w.kind}]]`, `address = ${text(w.address)}`];
  if (w.kind === 'device' && w.vf !== null) lines.push(`vf = ${w.vf}`);
  lines.push(`path = ${text(id.path)}`);
  for (const key of [...ID_KEYS, ...MARKS]) {
    const value = id[key];
    if (value !== null) lines.push(`${key} = ${text(value)}`);
  }
  if (w.kind === 'device') {
    lines.push(`driver = ${text(w.driver)}`);
    if (w.group) lines.push('group = "endpoints"');
  } else lines.push(`vfs = ${w.vfs}`, `for = ${text(w.for)}`);
  if (w.allow.length > 0) lines.push(`allow = [${w.allow.map(text).join(', ')}]`);
  for (const { first, last, driver, vgpu_type } of w.kind === 'pf' ? w.ranges : [])
    lines.push(
      '[[pf.range]]',
      `vfs = "${first === last ? first : `${first}-${last}`}"`,
      ...(driver === null ? [] : [`driver = ${text(driver)}`]),
      ...(vgpu_type === null ? [] : [`vgpu_type = ${vgpu_type}`]),
    );
  return `${lines.join('\n')}\n`;
}

/**
 * The text of the file without the tables of some wishes and with others at its end; null where nothing is left of it
 * but our own head. Raises HOSTDEV_CONFIG for a wish that is written in a way that leaves no table to take out (an
 * inline list), or for a text that is no TOML.
 */
export function changedText(before: string, gone: readonly Wish[], come: readonly Wish[]): string | null {
  const tables = before === '' ? [] : tableLines(before, ['device', 'pf']);
  const cut = new Set<number>();
  for (const w of gone) {
    const table = tables.find((t) => t.name === w.kind && t.first === w.place.line);
    if (table === undefined)
      throw new HostdevError('HOSTDEV_CONFIG', `${wishPlace(w)}: the wish is no [[${w.kind}]] table of its own`, {
        hint: 'Take it out by hand.',
      });
    for (let line = table.first; line <= table.last; line += 1) cut.add(line);
  }
  const lines = before.split('\n');
  const kept = lines.filter((line, n) => {
    if (cut.has(n + 1)) return false;
    // The empty line above a table goes with it; the one behind it, where it was the first of the file.
    return !(line.trim() === '' && (cut.has(n + 2) || (cut.has(n) && cut.has(1))) && n + 1 < lines.length);
  });
  const rest = kept.join('\n');
  const whole = rest === '' || rest.endsWith('\n') ? rest : `${rest}\n`;
  if (come.length === 0) return whole.trim() === HEAD.trim() || whole.trim() === '' ? null : whole;
  const begin = whole.trim() === '' ? HEAD : whole;
  return `${begin}${come.map((w) => `\n${tomlOf(w)}`).join('')}`;
}

/**
 * The file's text; '' where it is not there. Raises HOSTDEV_CONFIG for what is not to be edited: no TOML, too large, no
 * UTF-8.
 */
function keptText(host: Host): string {
  const file = host.absolute(host.kept);
  if (kindOf(host, file) === null) return '';
  const read = readText(host, file, MAX_BYTES);
  const finding = 'finding' in read ? read.finding : null;
  const parsed = 'text' in read ? readToml(file, read.text) : null;
  const wrong = finding ?? (parsed !== null && 'finding' in parsed ? parsed.finding : null);
  if (wrong !== null)
    throw new HostdevError('HOSTDEV_CONFIG', `${file}${wrong.line > 0 ? `:${wrong.line}` : ''} ${wrong.message}`, {
      hint: wrong.hint ?? 'Mend it by hand; nothing was changed.',
    });
  return 'text' in read ? read.text : '';
}

/** What becomes of the file: wishes that go from it, and that come into it. */
export type KeptChange = { gone: readonly Wish[]; come: readonly Wish[] };

/** What {@link keep} would raise before it writes: for a dry run, and before anything else is changed. */
export function checkKeep(host: Host, { gone, come }: KeptChange): void {
  changedText(keptText(host), gone, come);
}

/**
 * Writes the change that `plan` makes of what stands in the files once the file is ours alone. Raises HOSTDEV_CONFIG,
 * HOSTDEV_STORE, HOSTDEV_NOT_PERMITTED, HOSTDEV_TIMEOUT, and what `plan` raises.
 */
export async function keep(host: Host, deadline: Deadline, plan: () => Promise<KeptChange>): Promise<void> {
  const unlock = await takeLocks(host, ['wishes'], deadline);
  try {
    const { gone, come } = await plan();
    if (gone.length + come.length === 0) return;
    const before = keptText(host);
    const after = changedText(before, gone, come);
    if (after === null) removeFile(host, host.kept);
    else if (after !== before) replaceFile(host, host.kept, after, { durable: true });
  } finally {
    unlock();
  }
}
