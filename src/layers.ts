/**
 * Loads the bundle's layers (test/bundle.mjs), with the bytecode that V8 made of them earlier where there is some for this node. Compiling what a command runs costs more than running it (docs/decisions/0005-bundle.md).
 * A layer's file carries a hash of its text in its name, and its bytecode carries that name and V8's version: code of another version is
 * never taken for this one's. HOSTDEV_CODE_CACHE=make (src/warm.ts) writes the bytecode, of whatever the command ran, when it ends.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { Script } from 'node:vm';

/** File of each layer, without `.js`; put here by test/bundle.mjs. */
declare const LAYER_FILES: Record<string, string>;

type Loaded = { exports: object };
const loaded = new Map<string, Loaded>();
const make = process.env.HOSTDEV_CODE_CACHE === 'make';

function bytecodeOf(file: string): { cachedData?: Buffer } {
  try {
    return { cachedData: readFileSync(file) };
  } catch {
    // None was made for this node: it compiles as it goes.
    return {};
  }
}

type Wrapper = (exports: object, find: (id: string) => unknown, module: Loaded, folder: string) => void;

/** In a function of its own: a Script that a closure holds on to cannot go into a startup snapshot. */
function compiled(stem: string): Wrapper {
  const bytecode = `${stem}.${process.versions.v8}.cache`;
  const text = readFileSync(`${stem}.js`, 'latin1');
  const script = new Script(`(function (exports, require, module, __dirname) {${text}\n})`, {
    filename: `${stem}.js`,
    ...bytecodeOf(bytecode),
  });
  if (make) process.on('exit', () => keep(bytecode, script));
  return script.runInThisContext();
}

/** What a layer exports; runs it if nobody has asked for it before. */
export function load(name: string): object {
  const before = loaded.get(name);
  if (before !== undefined) return before.exports;
  const module: Loaded = { exports: {} };
  loaded.set(name, module);
  const find = (id: string): unknown =>
    id.startsWith('./') ? load(id.slice(2, -'.js'.length)) : process.getBuiltinModule(id);
  compiled(`${__dirname}/${LAYER_FILES[name]}`)(module.exports, find, module, __dirname);
  return module.exports;
}

function keep(file: string, script: Script): void {
  const fresh = `${file}.${process.pid}.new`;
  writeFileSync(fresh, script.createCachedData());
  renameSync(fresh, file);
}

/** Runs the command that process.argv says. */
export const start = (): void => (load('hostdev') as { start: () => void }).start();
