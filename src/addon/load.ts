/** Finds and loads the native part. Without it, reading goes on through plain fs and everything that writes refuses. */
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { FsReader } from './fsReader.ts';
import { type HelperAddon, HelperWriter } from './helperWriter.ts';
import { type LibvirtAddon, LibvirtCalls } from './libvirtCalls.ts';
import type { NativeBinding } from './native.ts';
import { processRuns } from './process.ts';

/** What the addon's module table exports: the interface without the parts that are TypeScript. */
type Addon = Omit<NativeBinding, 'kind' | 'openWriter' | 'openLibvirt' | 'loadModule' | 'processRuns'> &
  HelperAddon &
  LibvirtAddon;

/** The folder that holds hostdev.node and hostdev-native: as built, or as packaged; null when neither is there. */
function nativeDir(): string | null {
  const forced = process.env.HOSTDEV_NATIVE_DIR;
  // An empty value is no folder; resolved it would be the current one, which is anybody's.
  if (forced !== undefined) return forced !== '' && existsSync(join(forced, 'hostdev.node')) ? resolve(forced) : null;
  // The bundle lies in dist/, the sources in src/addon/: the package's top is one or two folders up.
  for (let top = import.meta.dirname, i = 0; i < 3; top = dirname(top), i += 1) {
    for (const dir of ['build/Release', `prebuilds/linux-${process.arch}`]) {
      if (existsSync(join(top, dir, 'hostdev.node'))) return join(top, dir);
    }
  }
  return null;
}

/** Path of hostdev-native, whether it is there or not. */
export const nativeExecutable = (): string => join(nativeDir() ?? 'build/Release', 'hostdev-native');

/** The addon, or its stand-in for reading when it is missing or does not load here. */
export function loadNative(): NativeBinding {
  const dir = nativeDir();
  if (dir === null) return new FsReader();
  let addon: Addon;
  const file = join(dir, 'hostdev.node');
  try {
    // What require() does with an addon, without the half of node:module that it loads first.
    const module = { exports: {} };
    process.dlopen(module, file);
    addon = module.exports as Addon;
  } catch (e) {
    // Built for another machine or libc: as good as missing, and whatever needs it says why.
    return new FsReader(`${file} does not load (${(e as Error).message.trim().split('\n')[0]})`);
  }
  return {
    ...addon,
    kind: 'addon',
    processRuns,
    openLibvirt: (threads) => new LibvirtCalls(addon, threads),
    openWriter: (root) => new HelperWriter(addon, join(dir, 'hostdev-native'), root),
  };
}
