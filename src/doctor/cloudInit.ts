/**
 * The same changes for machines that cloud-init makes: MAAS and clouds take user-data, Juju takes cloudinit-userdata of
 * a model, in which it refuses runcmd, bootcmd and users and runs postruncmd last (Juju's documentation,
 * "cloudinit-userdata"). A model gives it to its containers too: no command does anything there.
 */
import { type Change, withoutReplacing } from './cmdlineWords.ts';
import { GRUB, GRUB_DROPINS } from './grub.ts';
import type { Look } from './look.ts';
import type { Fix } from './table.ts';

const CLOUD = 'etc/cloud/cloud.cfg';
/** There where Juju runs the machine. */
export const JUJU = 'var/lib/juju';

/**
 * What a new machine is to be given: files, with content that is one line or several, and commands that make them take
 * effect.
 */
type UserData = { files?: readonly { path: string; content: string }[]; commands?: readonly string[] };

const NOT_IN_CONTAINER = 'systemd-detect-virt --quiet --container || ';

/** JSON's strings are YAML's too. */
const quoted = (text: string): string => (/['\n\\]/.test(text) ? JSON.stringify(text) : `'${text}'`);

function yaml({ files = [], commands = [] }: UserData, run: string): string[] {
  return [
    ...(files.length > 0 ? ['write_files:'] : []),
    ...files.flatMap(({ path, content }) => [`  - path: /${path}`, `    content: ${quoted(content)}`]),
    ...(commands.length > 0 ? [`${run}:`] : []),
    ...commands.map((c) => `  - ${quoted(`${NOT_IN_CONTAINER}${c}`)}`),
  ];
}

/** User-data in both forms; a machine of Juju's has its own only. Nothing where there is nothing to give. */
export function userData(look: Look, data: UserData): Fix[] {
  const juju = look.has(JUJU);
  const plain = yaml(data, 'runcmd');
  if (plain.length === 0) return [];
  return [
    {
      tool: 'cloud-init',
      where: 'user-data',
      line: plain.join('\n'),
      present: !juju && look.has(CLOUD),
      after: 'deploy the machine again, and reboot it once it is there',
    },
    {
      tool: 'juju',
      where: 'cloudinit-userdata.yaml',
      line: ['cloudinit-userdata: |', ...yaml(data, 'postruncmd').map((l) => `  ${l}`)].join('\n'),
      present: juju,
      after:
        'juju model-config --file cloudinit-userdata.yaml, beside what it has already; machines added from then on have it, after a reboot',
    },
  ];
}

/** Takes words out of a file, wherever they stand in it. */
const takenOut = (file: string, words: readonly string[]): string[] =>
  words.map((w) => `sed -i 's#\\b${w.replace(/[.+]/g, '[$&]')}\\b##' /${file}`);

/**
 * GRUB: a drop-in where the distribution reads them (Debian's grub-mkconfig), else a line behind the others of the
 * file, which a shell reads.
 */
export function grubUserData(look: Look, change: Change, command: string): Fix[] {
  const { add, remove } = withoutReplacing(change);
  const line = `GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT ${add.join(' ')}"`;
  const dropin = command === 'update-grub' && add.length > 0;
  const append = dropin || add.length === 0 ? [] : [`echo '${line}' >> /${GRUB}`];
  return userData(look, {
    files: dropin ? [{ path: `${GRUB_DROPINS}/90-hostdev.cfg`, content: line }] : [],
    commands: [...takenOut(GRUB, remove), ...append, command],
  });
}

/** A file of one line, and what brings it to the boot loader. */
export function oneLineUserData(look: Look, file: string, change: Change, command: string | null): Fix[] {
  const { add, remove } = withoutReplacing(change);
  return userData(look, {
    commands: [
      ...takenOut(file, remove),
      ...(add.length > 0 ? [`sed -i '1s#$# ${add.join(' ')}#' /${file}`] : []),
      ...(command === null ? [] : [command]),
    ],
  });
}
