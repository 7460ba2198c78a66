/**
 * Opening what lies below a root for node's own fs, so that no link leads out of it: what native/root_fs.cc does by
 * hand. Each step is taken from the descriptor of the folder before it, so nothing that moves meanwhile leads out
 * either. On the machine's own root there is nothing to be kept in, and a path is a path.
 */
import { closeSync, constants, fstatSync, openSync, readlinkSync } from 'node:fs';
import { isSysError } from '../errors.ts';

const MAX_LINKS = 40;
/** include/uapi/asm-generic/fcntl.h; node has no name for it. */
export const O_PATH = 0o10000000;

/** What node's fs can do with a descriptor only by a path (proc(5)): list it, or reach what is in it. */
export const pathOf = (fd: number, name?: string): string =>
  `/proc/self/fd/${fd}${name === undefined ? '' : `/${name}`}`;

/**
 * Opens `path` (relative) below `root`, its links resolved inside the root. With `refuse` there may be none: ELOOP,
 * whose `path` is the link's place below the root. Raises the errno of what stands in the way, with the path below the
 * root.
 */
export function openInRoot(root: string, path: string, flags: number, links: 'inside' | 'refuse' = 'inside'): number {
  if (root === '/') return openSync(`/${path}`, flags);
  const way: number[] = [];
  try {
    way.push(openSync(root, O_PATH | constants.O_DIRECTORY));
    return walk(way, path, flags, links);
  } catch (e) {
    throw isSysError(e) && e.path !== undefined && !e.path.startsWith('/') ? e : failure(e, path);
  } finally {
    for (const fd of way) closeSync(fd);
  }
}

/** `way`: the descriptors from the root to where the walk is; whoever called closes them. */
function walk(way: number[], path: string, flags: number, links: 'inside' | 'refuse'): number {
  const todo = path.split('/').filter(Boolean).reverse();
  const names: string[] = [];
  let met = 0;
  for (;;) {
    const here = way.at(-1) as number;
    const part = todo.pop();
    // By its own descriptor: what has its name by now may be something else.
    if (part === undefined) return openSync(pathOf(here), flags & ~constants.O_NOFOLLOW);
    if (part === '.') continue;
    if (part === '..') {
      if (way.length > 1) closeSync(way.pop() as number);
      names.pop();
      continue;
    }
    const next = openSync(pathOf(here, part), O_PATH | constants.O_NOFOLLOW);
    way.push(next);
    names.push(part);
    if (!fstatSync(next).isSymbolicLink()) continue;
    met += 1;
    if (links === 'refuse' || met > MAX_LINKS) throw loop(names.join('/'));
    const target = readlinkSync(pathOf(here, part));
    closeSync(way.pop() as number);
    names.pop();
    if (target.startsWith('/')) {
      for (const fd of way.splice(1)) closeSync(fd);
      names.length = 0;
    }
    todo.push(...target.split('/').filter(Boolean).reverse());
  }
}

const loop = (path: string): Error =>
  Object.assign(new Error(`ELOOP: too many symbolic links, open '${path}'`), {
    code: 'ELOOP',
    errno: -40,
    syscall: 'open',
    path,
  });

/** The path that was asked for instead of that of a descriptor. */
function failure(e: unknown, path: string): unknown {
  if (!isSysError(e)) return e;
  const { code, errno, syscall } = e;
  return Object.assign(new Error(`${code}: ${syscall} '${path}'`), { code, errno, syscall, path });
}
