/**
 * Whether libvirt finds hostdev's hook and can start it, and what else it would start. What libvirt does:
 * src/util/virhook.c, since 6.5 with qemu.d.
 */
import { ELF, fileFacts, fileHead, isBackupName } from '../host/files.ts';
import type { ProcessFacts } from '../host/processes.ts';
import { commandFix } from './fix.ts';
import { checkMoves } from './hookScripts.ts';
import type { Look } from './look.ts';
import { type Draft, finding } from './table.ts';

/** What `hook status` says of our own file (src/hook/install.ts). */
export type OwnHook = { installed: boolean; path: string; problems: { id: string; text: string }[] };

const LIBVIRT = 'etc/libvirt';

const HEAD = 256;
const PATH = ['usr/local/sbin', 'usr/local/bin', 'usr/sbin', 'usr/bin', 'sbin', 'bin'];

/** The clock of processes ticks in 10 ms, btime in seconds. */
const SLACK_MS = 2000;

export type HookFile = { path: string; name: string; executable: boolean; ctimeMs: number };

export function checkHooks(look: Look, own: OwnHook, libvirts: readonly ProcessFacts[]): Draft[] {
  const { host } = look;
  if (!look.has(LIBVIRT) && libvirts.length === 0 && !own.installed) {
    look.missed('libvirt hooks', `/${LIBVIRT} is not there: libvirt is not installed`);
    return [];
  }
  const folder = host.hookFolders.find((f) => look.has(f)) ?? host.hookFolders[0] ?? '';
  const files = hookFiles(look, folder);
  return [
    ...ownHook(look, own, files),
    ...files.flatMap((f) => checkFile(look, f, own)),
    ...checkMoves(
      look,
      folder,
      files.filter((f) => f.executable && !(own.installed && host.absolute(f.path) === own.path)).map((f) => f.path),
    ),
    ...notSeen(look, files, libvirts, folderBorn(look, folder)),
  ];
}

function hookFiles(look: Look, folder: string): HookFile[] {
  const paths = [`${folder}/qemu`, ...look.names(`${folder}/qemu.d`).map((n) => `${folder}/qemu.d/${n}`)];
  return paths.flatMap((path) => {
    const facts = look.quiet(`/${path}`, () => fileFacts(look.host, path));
    const name = path.slice(path.lastIndexOf('/') + 1);
    return facts?.isFile ? [{ path, name, executable: facts.executable, ctimeMs: facts.ctimeMs }] : [];
  });
}

function ownHook(look: Look, own: OwnHook, files: readonly HookFile[]): Draft[] {
  const foreign = files.some((f) => look.host.absolute(f.path) === own.path);
  if (!own.installed)
    return [
      finding(
        'hook-missing',
        own.path,
        `${own.path} is ${foreign ? "not hostdev's" : 'not there'}: devices with managed='no' are not bound for guests, and nothing is given back`,
        [commandFix('hostdev hook install', foreign ? 'once that file is moved away' : null)],
      ),
    ];
  return own.problems.map(({ id, text }) =>
    id === 'outdated'
      ? finding('hook-outdated', own.path, text, [commandFix('hostdev hook install')])
      : finding('hook-broken', own.path, text, [
          commandFix(id === 'not-executable' ? `chmod 755 ${own.path}` : 'hostdev hook install'),
        ]),
  );
}

function checkFile(look: Look, f: HookFile, own: OwnHook): Draft[] {
  const at = look.host.absolute(f.path);
  if (own.installed && at === own.path) return [];
  const inFolder = f.path.includes('/qemu.d/');
  if (!f.executable) {
    return isBackupName(f.name)
      ? []
      : [
          finding(
            'hook-not-executable',
            at,
            `${at} has no execute bit: libvirt passes it over, and says so only in its log`,
            [commandFix(`chmod 755 '${at}'`, 'or remove it, if it is not meant to run')],
          ),
        ];
  }
  const found: Draft[] = [];
  if (inFolder && isBackupName(f.name))
    found.push(
      finding('hook-stray', at, `${at} looks like a backup, and libvirt runs it beside the others`, [
        commandFix(`chmod a-x '${at}'`, 'or remove it'),
      ]),
    );
  const fault = cannotStart(look, f.path);
  if (fault !== null)
    found.push(
      finding('hook-no-interpreter', at, `${at}: ${fault}`, [
        { tool: 'file', where: `${at}:1`, line: '#!/bin/sh', present: true, after: null },
      ]),
    );
  return found;
}

/** Why execve(2) would not start a file; null when it would. */
function cannotStart(look: Look, path: string): string | null {
  const head = look.quiet(`/${path}`, () => fileHead(look.host, path, HEAD))?.toString('latin1');
  if (head === undefined || head.startsWith(ELF)) return null;
  if (head === '') return 'it is empty';
  if (!head.startsWith('#!')) return 'it has no first line such as #!/bin/sh, and libvirt starts it without a shell';
  const line = head.slice(2).split('\n', 1)[0] ?? '';
  if (line.includes('\r'))
    return 'its first line ends with a carriage return (an editor of Windows): the interpreter is not found';
  const [interpreter = '', argument] = line.trim().split(/\s+/);
  if (interpreter === '') return 'its first line names no interpreter';
  if (!interpreter.startsWith('/')) return `its interpreter ${interpreter} is no absolute path`;
  if (!isProgram(look, interpreter.slice(1))) return `its interpreter ${interpreter} is not there or not executable`;
  if (
    /\/env$/.test(interpreter) &&
    argument !== undefined &&
    /^[\w.+-]+$/.test(argument) &&
    !PATH.some((p) => isProgram(look, `${p}/${argument}`))
  )
    return `its interpreter ${argument} is not there`;
  return null;
}

const isProgram = (look: Look, path: string): boolean => {
  const facts = look.quiet(`/${path}`, () => fileFacts(look.host, path));
  return facts?.isFile === true && facts.executable;
};

/** Since when there can have been a hook in qemu.d; null when that is not known. */
const folderBorn = (look: Look, folder: string): number | null =>
  look.quiet(`/${folder}/qemu.d`, () => fileFacts(look.host, `${folder}/qemu.d`))?.bornMs ?? null;

/**
 * libvirt looks for a driver's hooks when it starts, and afterwards reads qemu.d anew at each call only if there was
 * any. A hook that is newer than libvirt may have replaced an older one, unless its folder is newer too.
 */
export function notSeen(
  look: Look,
  files: readonly HookFile[],
  libvirts: readonly ProcessFacts[],
  bornMs: number | null,
): Draft[] {
  const runnable = files.filter((f) => f.executable);
  if (runnable.length === 0) return [];
  const first = Math.min(...runnable.map((f) => f.ctimeMs));
  return libvirts.flatMap((p): Draft[] => {
    if (p.startedMs === null) {
      look.missed(`${p.command} (pid ${p.pid})`, 'when it was started');
      return [];
    }
    if (first <= p.startedMs + SLACK_MS) return [];
    const replaced = bornMs !== null && bornMs <= p.startedMs + SLACK_MS;
    return [
      finding(
        replaced ? 'hook-maybe-not-seen' : 'hook-not-seen',
        `${p.command} (pid ${p.pid})`,
        `started ${new Date(p.startedMs).toISOString()}; the oldest hook file is of ${new Date(first).toISOString()}`,
        [commandFix(`systemctl restart ${p.command}`, 'running guests go on')],
      ),
    ];
  });
}
