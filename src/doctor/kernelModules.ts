/** The modules of the running kernel. */
import type { Look } from './look.ts';

const MAX_LIST = 16 * 1024 * 1024;

/** Whether the running kernel has a module, loadable or built in; null when modules.dep is not there. */
export function kernelHas(look: Look): ((module: string) => boolean) | null {
  const { host } = look;
  const { release } = host;
  const read = (file: string): string | null =>
    release === null
      ? null
      : host.moduleFiles(release, file).reduce<string | null>((text, path) => text ?? look.text(path, MAX_LIST), null);
  const dep = read('modules.dep');
  if (dep === null) return null;
  const list = `${dep}\n${read('modules.builtin') ?? ''}`;
  return (m) => new RegExp(`(?:^|/)${m.replaceAll('_', '[-_]')}\\.ko(?:\\.\\w+)?(?::|$)`, 'm').test(list);
}
