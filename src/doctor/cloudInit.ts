/**
 * The same changes for machines that cloud-init makes: MAAS and clouds take user-data, Juju takes cloudinit-userdata of
 * a model, in which it refuses runcmd, bootcmd and users and runs postruncmd last (Juju's documentation,
 * "cloudinit-userdata"). A model gives it to its containers too: nothing is written or done there.
 */
import { dirname } from 'node:path';
import { type Change, withoutReplacing } from './cmdlineWords.ts';
import { GRUB, GRUB_DROPINS } from './grub.ts';
import type { Look } from './look.ts';
import type { Fix } from './table.ts';

const CLOUD = 'etc/cloud/cloud.cfg';
/** There where Juju runs the machine. */
export const JUJU = 'var/lib/juju';

/**
 * What a new machine is to be given: files, whose content is one line or several, and commands that make them take
 * effect.
 */
type UserData = { files?: readonly { path: string; content: string }[]; commands?: readonly string[] };

/** What no command does in a container of the model's. */
const NOT_IN_CONTAINER = 'systemd-detect-virt --quiet --container || ';

/** JSON's strings are YAML's too. */
const quoted = (text: string): string => (/['\n\\]/.test(text) ? JSON.stringify(text) : `'${text}'`);

/** A file by a command, for write_files would write it in a container too. */
const written = ({ path, content }: { path: string; content: string }): string =>
  `{ mkdir -p /${dirname(path)} && printf '%s\\n' '${content.trimEnd().replaceAll("'", "'\\''")}' > /${path}; }`;

function yaml({ files = [], commands = [] }: UserData, run: string): string[] {
  const all = [...files.map(written), ...commands];
  return all.length === 0 ? [] : [`${run}:`, ...all.map((c) => `  - ${quoted(`${NOT_IN_CONTAINER}${c}`)}`)];
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

const DROPIN = `${GRUB_DROPINS}/90-hostdev.cfg`;

/** GRUB's files are read by a shell. */
const grubLine = (words: readonly string[]): string =>
  `GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT ${words.join(' ')}"`;

/** Takes words out of a file, wherever they stand in it. */
const takenOut = (file: string, words: readonly string[]): string[] =>
  words.map((w) => `sed -i 's#\\b${w.replace(/[.+]/g, '[$&]')}\\b##' /${file}`);

/**
 * GRUB: a drop-in where the distribution reads them (Debian's grub-mkconfig), else a line behind the others of the
 * file, which a shell reads.
 */
export function grubUserData(look: Look, change: Change, command: string): Fix[] {
  const { add, remove } = withoutReplacing(change);
  const line = grubLine(add);
  const dropin = command === 'update-grub' && add.length > 0;
  const append = dropin || add.length === 0 ? [] : [`echo '${line}' >> /${GRUB}`];
  return userData(look, {
    files: dropin ? [{ path: DROPIN, content: line }] : [],
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

/** What machines that are made anew are to be given: their wishes as a file's text, and words of the kernel line. */
export type NewMachines = { wishes: string; words: readonly string[] };

/** The wishes of new machines lie beside those that are kept on each of them. */
const WISHES = 'etc/hostdev/conf.d/80-cloud-init.toml';

/**
 * The whole user-data for new machines: the package, the wishes, the kernel words in one place, the part in the
 * initramfs last, for it is made of the others. For Juju as the model's cloudinit-userdata, with nothing that Juju
 * refuses. MAAS takes the same words as kernel_opts of one tag: a machine with two such tags gets those of one only.
 */
export function newMachines({ wishes, words }: NewMachines, juju: boolean): string {
  const data: UserData = {
    files: [
      { path: WISHES, content: wishes },
      ...(words.length > 0 ? [{ path: DROPIN, content: `${grubLine(words)}\n` }] : []),
    ],
    commands: [
      'apt-get install --yes hostdev',
      ...(words.length > 0 ? ['update-grub'] : []),
      'hostdev boot install',
      'hostdev hook install',
    ],
  };
  const body = yaml(data, juju ? 'postruncmd' : 'runcmd');
  const maas = [
    `# MAAS: instead of ${DROPIN} and update-grub, one tag, and no other with kernel_opts on these machines:`,
    `#   maas $PROFILE tags create name=hostdev kernel_opts="${words.join(' ')}"`,
  ];
  const lines = [
    '# Machines of one kind: the cards are told by slot and ids. Reboot once it is through.',
    ...(words.length > 0 ? maas : []),
  ];
  return juju
    ? [...lines, 'cloudinit-userdata: |', ...body.map((l) => `  ${l}`), ''].join('\n')
    : ['#cloud-config', ...lines, ...body, ''].join('\n');
}
