/**
 * Scripts that somebody else's qemu hook starts: the layout of the hook helper (qemu.d/GUEST/OPERATION/SUBOPERATION/*),
 * scripts beside the hook, scripts started by their path. They move the same devices as we do, and some call libvirt
 * from inside its own hook. Bounded in depth, number and size; no link leads out of the root.
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

/**
 * One finding for each of the hooks (paths below the root), and for each script that they start, which moves devices by
 * itself.
 */
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
        workFix(look, path, at, UNIT_FOLDERS.some((f) => path.startsWith(`${f}/`)) ? 'systemctl daemon-reload' : null),
      ),
    ];
  });
}

function scriptsOf(look: Look, folder: string, hooks: readonly string[]): Script[] {
  const found = new Map<string, Script>(hooks.map((path) => [path, { path, by: null }]));
  // A hook that hands on to a folder of its own: whose files are no hooks to libvirt (src/util/virhook.c reads one
  // level).
  const [dispatcher] = hooks;
  if (dispatcher === undefined) return [];
  for (const path of below(look, `${folder}/qemu.d`, MAX_DEPTH)) put(look, found, path, dispatcher);
  const commands = ADMINS_COMMANDS.flatMap((f) => look.names(f).map((name) => ({ name, path: `${f}/${name}` })));
  // A Map's iteration comes to what is added meanwhile.
  for (const { path } of found.values()) {
    const text = startsIn(look, path);
    for (const named of pathsIn(text, path)) put(look, found, named, path);
    for (const unit of unitsIn(look, text)) put(look, found, unit, path);
    const words = new Set(text.match(/(?<![\w./-])[\w.-]+/g));
    for (const c of commands) if (words.has(c.name)) put(look, found, c.path, path);
  }
  return [...found.values()];
}

/** Lines of a script that may start another one. */
const startsIn = (look: Look, path: string): string =>
  linesWith(look, path, /./)
    .map((l) => l.text)
    .join('\n');

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

/** Where an admin puts commands of their own; those of the distribution move no devices. */
const ADMINS_COMMANDS = ['usr/local/sbin', 'usr/local/bin'];
const UNIT_FOLDERS = [
  'etc/systemd/system',
  'usr/local/lib/systemd/system',
  'usr/lib/systemd/system',
  'lib/systemd/system',
];

/** Units that a script starts. */
function unitsIn(look: Look, text: string): string[] {
  const names = [
    ...text.matchAll(/\bsystemctl\s+(?:-\S+\s+)*(?:re)?(?:start|stop|load-or-restart)\s+([^;&|\n]{1,512})/g),
  ]
    .flatMap(([, list = '']) => list.replace(/["']/g, '').split(/\s+/))
    .filter((n) => /^[\w:.@${}\\-]{1,128}$/.test(n) && !n.startsWith('-'));
  return names.flatMap((name) => {
    const unit = /\.(?:service|target|timer)$/.test(name) ? name : `${name}.service`;
    const template = unit.replace(/@.*(?=\.\w+$)/, '@');
    const path = UNIT_FOLDERS.flatMap((f) => [`${f}/${unit}`, `${f}/${template}`]).find((p) => look.has(p));
    return path ?? [];
  });
}

/**
 * A script's own path and folder as it asks for them, once quotes are gone: `$0`, `$(dirname …)`, `$(readlink -f …)`,
 * `$(cd … && pwd)`.
 */
function ownPaths(text: string, path: string): string {
  const folder = (p: string): string => p.slice(0, p.lastIndexOf('/')) || '/';
  let now = text
    .replace(/\$\{0%\/\*\}|\$\{BASH_SOURCE(?:\[0\])?%\/\*\}/g, folder(`/${path}`))
    .replace(/\$\{?(?:0|BASH_SOURCE)(?:\[0\])?\}?(?![\w%])/g, `/${path}`);
  // Each turn opens one layer.
  for (let turn = 0; turn < 4; turn += 1)
    now = now
      .replace(/\$\(\s*(?:readlink|realpath)(?:\s+-\S+)*\s+([\w./+@-]+)\s*\)/g, '$1')
      .replace(/\$\(\s*dirname(?:\s+--)?\s+([\w./+@-]+)\s*\)/g, (_, p: string) => folder(p))
      .replace(
        /\$\(\s*cd(?:\s+--)?\s+([\w./+@-]+)(?:\s[12&]?>\s*(?:&\d|[^\s>&;]+))*\s*(?:&&|;)\s*pwd(?:\s+-\w)?\s*\)/g,
        '$1',
      );
  return now;
}

const SETS = /^\s*(?:export\s+|local\s+|readonly\s+)?(\w{1,64})=(\/[\w./+@-]{1,256})/gm;

/**
 * Paths that a script's text names, without the leading slash; of variables those that the text itself sets to a path.
 */
function pathsIn(text: string, path: string): string[] {
  let plain = ownPaths(text.replace(/["']/g, ''), path).replace(/\$\{\w{1,64}:?[-=](\/[\w./+@-]{1,256})\}/g, '$1');
  // A variable may be set by way of another.
  for (let turn = 0; turn < 3; turn += 1) {
    const set = new Map([...plain.matchAll(SETS)].map(([, name, value]) => [name, value]));
    plain = plain.replace(/\$\{?(\w{1,64})\}?/g, (whole, name: string) => set.get(name) ?? whole);
  }
  const cd = /(?:^|[;&|])\s*cd\s+(?:--\s+)?(\/[\w./+@-]{1,256})/m.exec(plain)?.[1];
  if (cd !== undefined) plain = plain.replace(/(?<![\w./$}-])\.\/(?=[\w+@-])/g, `${cd}/`);
  // systemd's marks before a command.
  plain = plain.replace(/=[-@:+!|]+(?=\/)/g, '=');
  return [...new Set([...plain.matchAll(/(?<![\w./$}-])\/[\w./+@-]{2,256}/g)].map(([found]) => found))]
    .filter((found) => !NO_SCRIPT.test(found) && !found.split('/').includes('..'))
    .map((found) => found.replace(/\/{2,}/g, '/').slice(1));
}
