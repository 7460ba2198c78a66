/** GRUB's files: the lines that hold the kernel command line, as they must be. */
import { BY_LOADER, type Change, changed, key, ONCE, WORD } from './cmdlineWords.ts';
import { commandFix } from './fix.ts';
import type { Look } from './look.ts';
import type { Fix } from './table.ts';

export const GRUB = 'etc/default/grub';
export const GRUB_DROPINS = 'etc/default/grub.d';

/**
 * A shell assignment without commands in it: what GRUB's files usually hold. In double quotes a variable, its own above
 * all, is one of the words.
 */
const GRUB_LINE =
  /^(\s*(?:export\s+)?(GRUB_CMDLINE_LINUX(?:_DEFAULT)?)=)(?:"((?:[^"`$\\]|\$\w)*)"|'([^'"`$\\]*)'|([\w.,:=@/+-]*))\s*(?:#.*)?$/;

/** Lines of GRUB's files with the change made; `command` is what makes GRUB follow them. */
export function grubFix(look: Look, change: Change, command: string): Fix[] {
  const after = `${command}; then reboot`;
  const main = look.text(GRUB);
  const files = [
    GRUB,
    ...look
      .names(GRUB_DROPINS)
      .filter((n) => n.endsWith('.cfg'))
      .map((n) => `${GRUB_DROPINS}/${n}`),
  ];
  const lines = files.flatMap((file) => assignments(file, look.text(file) ?? ''));
  const fixes: Fix[] = [];
  // What is to go may stand in several lines; what is to come goes into the one that counts last.
  const target = lines.findLast((l) => l.variable === 'GRUB_CMDLINE_LINUX_DEFAULT') ?? lines.at(-1);
  for (const l of lines) {
    // Elsewhere a word of the same key would come after ours, or before it: it goes.
    const same =
      l === target ? [] : l.words.filter((w) => ONCE.has(key(w)) && change.add.some((a) => key(a) === key(w)));
    const add = l === target ? change.add.filter((a) => ONCE.has(key(a)) || !isElsewhere(lines, l, a)) : [];
    const words = changed(l.words, { add, remove: [...change.remove, ...same], replace: change.replace });
    if (words.join(' ') === l.words.join(' ')) continue;
    fixes.push({
      tool: 'grub',
      where: `/${l.file}:${l.line}`,
      line: `${l.head}"${words.join(' ')}"`,
      present: true,
      after,
    });
  }
  if (fixes.length > 0) return fixes;
  if (main !== null) return [nothingToChange(lines, change, command)];
  // Nobody knows what the file would say: what the kernel was started with, less what GRUB adds by itself.
  const words = changed(
    look.cmdline.filter((w) => !BY_LOADER.test(w) && !/^(?:root=.*|ro|rw)$/.test(w)),
    change,
  );
  const line = `GRUB_CMDLINE_LINUX_DEFAULT="${words.filter((w) => WORD.test(w)).join(' ')}"`;
  return [{ tool: 'grub', where: `/${GRUB}`, line, present: false, after }];
}

const isElsewhere = (lines: readonly Assignment[], here: Assignment, word: string): boolean =>
  lines.some((l) => l !== here && l.words.includes(word));

/**
 * GRUB's files need no other line, and yet the kernel was not started so; or they hold none that can be given back
 * changed.
 */
function nothingToChange(lines: readonly Assignment[], { add }: Change, command: string): Fix {
  const after = `${command}; then reboot`;
  if (add.length === 0)
    return {
      ...commandFix(command, "GRUB's files do not have the word any more; then reboot"),
      tool: 'grub',
    };
  const l = lines.find((o) => add.some((a) => o.words.includes(a)));
  if (l !== undefined && add.every((a) => lines.some((o) => o.words.includes(a))))
    return {
      tool: 'grub',
      where: `/${l.file}:${l.line}`,
      line: `${l.head}"${l.words.join(' ')}"`,
      present: true,
      after: `the line is so already: ${after}`,
    };
  return {
    tool: 'grub',
    where: `/${GRUB}`,
    line: `GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT ${add.join(' ')}"`,
    present: true,
    after,
  };
}

type Assignment = { file: string; line: number; head: string; variable: string; words: string[] };

function assignments(file: string, text: string): Assignment[] {
  return text
    .split('\n')
    .slice(0, 4096)
    .flatMap((raw, i): Assignment[] => {
      const [, head, variable, double, single, bare] = raw.length > 8192 ? [] : (GRUB_LINE.exec(raw) ?? []);
      if (head === undefined || variable === undefined) return [];
      const value = double ?? single ?? bare ?? '';
      return [{ file, line: i + 1, head, variable, words: value.split(/\s+/).filter(Boolean) }];
    });
}
