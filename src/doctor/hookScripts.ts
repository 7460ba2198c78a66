/**
 * Scripts that somebody else's qemu hook starts: the layout of the hook helper (qemu.d/GUEST/OPERATION/SUBOPERATION/*), scripts beside the hook, scripts started by their
 * path. They move the same devices as we do, and some call libvirt from inside its own hook. Bounded in depth, number and size; no link leads out of the root.
 */
import { ELF, fileFacts, fileHead } from '../host/files.ts';
import { linesWith } from './leftovers.ts';
import type { Look } from './look.ts';
import { workFix } from './scriptFix.ts';
import { MOVES } from './shellWork.ts';
import { type Draft, finding } from './table.ts';

const MAX_DEPTH = 5;
const MAX_SCRIPTS = 256;

/** A script, and the one that it was found through; null for a hook itself. */
type Script = { path: string; by: string | null };

/** One finding for each of the hooks (paths below the root), and for each script that they start, which moves devices by itself. */
export function checkMoves(look: Look, folder: string, hooks: readonly string[]): Draft[] {
  return scriptsOf(look, folder, hooks).flatMap(({ path, by }) => {
    const [moves] = linesWith(look, path, MOVES);
    if (moves === undefined) return [];
    const at = look.host.absolute(path);
    const started = by === null ? '' : ` (started by ${look.host.absolute(by)})`;
    const waits = /nodedev-/.test(moves.text) ? ' calls libvirt from its own hook, which may wait for ever' : '';
    return [
      finding(
        'hook-writes-driver',
        `${at}:${moves.line}`,
        `"${moves.text.slice(0, 200)}"${started}${waits}; hostdev's hook binds what the domain lists`,
        workFix(look, path, at, null),
      ),
    ];
  });
}

function scriptsOf(look: Look, folder: string, hooks: readonly string[]): Script[] {
  const found = new Map<string, Script>(hooks.map((path) => [path, { path, by: null }]));
  // A hook that hands on to a folder of its own: whose files are no hooks to libvirt (src/util/virhook.c reads one level).
  const [dispatcher] = hooks;
  if (dispatcher === undefined) return [];
  for (const path of below(look, `${folder}/qemu.d`, MAX_DEPTH)) put(look, found, path, dispatcher);
  // A Map's iteration comes to what is added meanwhile.
  for (const { path } of found.values()) {
    const text = linesWith(look, path, /\//)
      .map((l) => l.text)
      .join('\n');
    for (const named of pathsIn(text, folder)) put(look, found, named, path);
  }
  return [...found.values()];
}

function put(look: Look, found: Map<string, Script>, path: string, by: string): void {
  if (found.has(path) || found.size >= MAX_SCRIPTS || !isScript(look, path)) return;
  found.set(path, { path, by });
}

/** Started by its own execute bit or by an interpreter: a compiled program is neither. */
function isScript(look: Look, path: string): boolean {
  const facts = look.quiet(`/${path}`, () => fileFacts(look.host, path));
  const head = facts?.isFile === true ? look.quiet(`/${path}`, () => fileHead(look.host, path, ELF.length)) : null;
  return head !== null && head.length > 0 && head.toString('latin1') !== ELF;
}

/** Files in the folders below one: a file of the folder itself is a hook of libvirt's. */
function below(look: Look, folder: string, depth: number): string[] {
  if (depth === 0) return [];
  return look.names(folder).flatMap((name) => {
    const path = `${folder}/${name}`;
    if (look.quiet(`/${path}`, () => fileFacts(look.host, path))?.isFolder !== true) return [];
    return [...look.names(path).map((n) => `${path}/${n}`), ...below(look, path, depth - 1)];
  });
}

/** Places where no script lies: the kernel's own trees. */
const NO_SCRIPT = /^\/(?:sys|proc|dev)\//;

/** Paths that a script's text names, without the leading slash; `$0`'s folder is the hooks', variables are those that the text itself sets to a path. */
function pathsIn(text: string, folder: string): string[] {
  const set = new Map(
    [...text.matchAll(/^\s*(?:export\s+|local\s+)?(\w{1,64})=["']?(\/[\w./+@-]{1,256})/gm)].map(([, name, value]) => [
      name,
      value,
    ]),
  );
  const plain = text
    .replace(/\$\(\s*dirname\s+(?:--\s+)?["']?\$\{?0\}?["']?\s*\)|\$\{0%\/\*\}/g, `/${folder}`)
    .replace(/\$\{?(\w{1,64})\}?/g, (whole, name: string) => set.get(name) ?? whole)
    .replace(/["']/g, '');
  return [...new Set([...plain.matchAll(/(?<![\w./$}-])\/[\w./+@-]{2,256}/g)].map(([path]) => path))]
    .filter((path) => !NO_SCRIPT.test(path) && !path.split('/').includes('..'))
    .map((path) => path.replace(/\/{2,}/g, '/').slice(1));
}
