/**
 * The manual, made from what the program itself is made from: the table of commands, the schema of the configuration,
 * the exit codes. man(7), in plain ASCII.
 */
import { GUARDS, isAllowable } from '../../../src/binding/guards.ts';
import type { Command, GlobalOption } from '../../../src/cli/command.ts';
import { COMMANDS, GLOBALS } from '../../../src/cli/commands.ts';
import { optionText, synopsis } from '../../../src/cli/usage.ts';
import type { Section } from '../../../src/config/keyRule.ts';
import { keysOf, SCHEMA, type SectionName } from '../../../src/config/schema.ts';
import { EXIT } from '../../../src/errors.ts';
import { MEANING } from './exitMeanings.ts';

/** Of the manual's last change by hand. */
const DATE = '2026-11-26';
const MADE = '.\\" Made by test/unit/cli/manual.ts; to change it: UPDATE_DOCS=1 npx vitest run manual\n';

/** Text as roff shows it: nothing in it is a request. A line a sentence, and none longer than 80. */
const roff = (text: string): string =>
  text
    .replaceAll(/(?<=[a-z)`"]{2}[.]) /g, '\n')
    .split('\n')
    .flatMap(wrapped)
    .map(escaped)
    .join('\n');

function wrapped(line: string): string[] {
  const lines: string[] = [];
  for (const word of line.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && escaped(`${last} ${word}`).length <= 78) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

const escaped = (text: string): string =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('…', '...')
    .replaceAll('`', '')
    .replaceAll('-', '\\-')
    .replaceAll("'", '\\(aq')
    .replace(/^\./, '\\&.');

const head = (name: string, section: number, what: string): string =>
  `${MADE}.TH ${name.toUpperCase()} ${section} "${DATE}" "hostdev" "hostdev manual"\n.SH NAME\n${roff(name)} \\- ${roff(what)}\n`;
const part = (title: string, ...body: string[]): string => `.SH ${title}\n${body.join('')}`;
const paragraph = (...texts: string[]): string => texts.map((t) => `.PP\n${roff(t)}\n`).join('');
/** A term in bold and what it is; `more` is indented below. */
const item = (term: string, text: string, more = ''): string =>
  `.TP\n.B ${escaped(term)}\n${roff(text)}\n${more === '' ? '' : `.RS\n${more}.RE\n`}`;
/** The first paragraph after a heading needs no request of its own. */
const body = (...texts: string[]): string => paragraph(...texts).replace('.PP\n', '');
const example = (...lines: string[]): string =>
  `.PP\n.RS 4\n.nf\n${lines.map((l) => `${roff(l)}\n`).join('')}.fi\n.RE\n`;

const sentence = (text: string): string =>
  `${/^(?:libvirt|hostdev)\b/.test(text) ? text.charAt(0) : text.charAt(0).toUpperCase()}${text.slice(1)}${text.endsWith('.') ? '' : '.'}`;

function commandItem(c: Command): string {
  const own = Object.entries(c.own ?? {}).map(([name, o]) => item(optionText(name, o), sentence(o.text)));
  const taken = (c.takes ?? []).map((name) => `--${name}`);
  const also = taken.length === 0 ? '' : `Also ${taken.join(', ')}.`;
  const more = [c.more ?? '', also]
    .filter(Boolean)
    .map((text) => paragraph(text))
    .join('');
  return item(synopsis(c), sentence(c.text), `${own.join('')}${more}`);
}

function program(): string {
  return [
    head('hostdev', 1, 'hand PCI devices to libvirt guests and take them back'),
    part('SYNOPSIS', '.B hostdev\n.RI [ option ...]\n.I command\n.RI [ word ...]\n'),
    part(
      'DESCRIPTION',
      body(
        'hostdev gets the PCI devices of a Linux host ready for libvirt guests and gives them back: bound to the variant driver of the kernel or to vfio-pci, as one transaction that either holds or is undone. It is called by an administrator, and by the qemu hook of libvirt once "hostdev hook install" has put it there.',
        'What the words mean, how devices are named and what it exits with is in hostdev(7); the configuration in hostdev.toml(5).',
      ),
    ),
    part('COMMANDS', ...COMMANDS.map(commandItem)),
    part(
      'OPTIONS',
      body('Each is taken where it means something; the help of a command shows which those are.'),
      ...Object.entries(GLOBALS)
        .filter(
          ([name, o]) => o.every || name === 'version' || COMMANDS.some((c) => c.takes?.includes(name as GlobalOption)),
        )
        .map(([name, o]) =>
          item(`${o.short === undefined ? '' : `-${o.short}, `}${optionText(name, o)}`, sentence(o.text)),
        ),
    ),
    part(
      'GUARDS',
      body(
        'A guard refuses what would hurt the host (exit status 5). One that can be lifted is lifted by its name, with --allow.',
      ),
      ...Object.entries(GUARDS).map(([name, g]) =>
        item(name, sentence(`${g.text}${isAllowable(name) ? '' : ' (cannot be lifted)'}`)),
      ),
    ),
    part('EXIT STATUS', exits()),
    part(
      'EXAMPLES',
      body('What stands in the way of passthrough on this host, and the line to change:'),
      example('hostdev doctor'),
      paragraph('What would be written to bind a device, and then the real run:'),
      example('hostdev bind -n 0000:21:10.0', 'hostdev bind 0000:21:10.0'),
      paragraph('All about one device as a program reads it:'),
      example('hostdev show -j 0000:21:10.0'),
    ),
    part('SEE ALSO', '.BR hostdev.toml (5),\n.BR hostdev (7),\n.BR virsh (1)\n'),
  ].join('');
}

const exits = (): string =>
  (Object.keys(EXIT) as (keyof typeof EXIT)[]).map((name) => item(`${EXIT[name]}`, MEANING[name])).join('');

function sectionPart(name: SectionName): string {
  const s: Section = SCHEMA[name];
  const keys = Object.entries(keysOf(name)).map(([key, rule]) =>
    item(
      key,
      `${sentence(rule.types.join(' or '))} ${rule.required ? 'Must be given.' : `When left out: ${sentence(rule.otherwise)}`} ${sentence(rule.rule)}`,
    ),
  );
  const open = s.open ? ' A key that is not listed is a tag of your own: it becomes part of the pool.' : '';
  return `.SS ${roff(s.list ? `[[${name}]]` : `[${name}]`)}\n${body(`${s.text}${open}`)}${keys.join('')}`;
}

function configuration(): string {
  return [
    head('hostdev.toml', 5, 'configuration of hostdev'),
    part('SYNOPSIS', '.I /etc/hostdev/hostdev.toml\n.br\n.I /etc/hostdev/conf.d/*.toml\n'),
    part(
      'DESCRIPTION',
      body(
        'hostdev reads /etc/hostdev/hostdev.toml and then /etc/hostdev/conf.d/*.toml in the order of their names: [[...]] add up, of the other settings the last counts. Without any of them hostdev works, and no device is in a pool. "hostdev config check" tells every mistake with its place.',
        'A sample with every table is /usr/share/doc/hostdev/examples/hostdev.toml. Where a key means something else than in Nova, and why, is in docs/reference/config.md.',
      ),
    ),
    part('TABLES', ...(Object.keys(SCHEMA) as SectionName[]).map(sectionPart)),
    part('SEE ALSO', '.BR hostdev (1),\n.BR hostdev (7)\n'),
  ].join('');
}

function concepts(): string {
  return [
    head('hostdev', 7, 'the concepts of hostdev, the names of devices, and its exit codes'),
    part(
      'CONCEPTS',
      item(
        'IOMMU group',
        'The devices that the hardware cannot keep apart. A group goes to one guest as a whole: all of it is on VFIO drivers, or unused, or no guest gets any of it.',
      ),
      item(
        'binding',
        'A device that hostdev moved to another driver, with what was there before: its driver and its driver_override. Giving it back restores both.',
      ),
      item('hold', 'The right of a consumer to a binding. A device is given back when the last hold on it ends.'),
      item('consumer', 'Who a device is for: a domain by its UUID, or the administrator.'),
      item(
        'variant driver',
        'A VFIO driver of the kernel for one kind of device, which can do more than vfio-pci: migration above all. hostdev takes it by itself.',
      ),
      item(
        'managed',
        "An attribute of a device in the XML of a domain. With managed='no' hostdev binds the device before the guest and gives it back after; with managed='yes' libvirt does, and hostdev checks beforehand and restores what libvirt leaves behind.",
      ),
      item(
        'transaction',
        'A change of one or more devices. Each step is written, read back and compared; what fails is undone in reverse. It is recorded in the journal before the first step, so that what a crash left is brought to one end by the next command.',
      ),
      item(
        'guard',
        'A rule that refuses what would hurt the host: a mounted disk, the way to the network, the display, a device that somebody holds. See GUARDS in hostdev(1).',
      ),
      item(
        'drift',
        'What is not as the books say: somebody else changed a driver, or the guest that has a hold is not there. "hostdev status" shows it and "hostdev status --fix" mends it.',
      ),
      item(
        'pool',
        'Devices of the configuration that are alike, as in Nova; a request takes devices from it by an alias.',
      ),
    ),
    part(
      'NAMES OF DEVICES',
      body(
        'A device is named by the first of these that fits; a name that fits none or several devices is an error (exit status 4).',
      ),
      item(
        '0000:01:00.0, 01:00.0, pci_0000_01_00_0',
        'Its PCI address, in full, without the domain, or as libvirt writes it.',
      ),
      item('8086:10ca', 'Its vendor and device id, if there is only one of them.'),
      item('/dev/nvme0n1, nvme0n1, eth0', 'What its driver has made: a disk or a network interface.'),
    ),
    part(
      'EXIT CODES',
      exits(),
      paragraph(
        'When several apply, the first of 70, 130, 7, 2, 4, 6, 5, 9, 8, 3, 1 is given. An empty list is 0. A dry run exits as the real run would.',
      ),
    ),
    part(
      'JSON',
      body(
        'With -j there is exactly one JSON document on the standard output, for errors too: {"schema":1, ...}, an error as {"schema":1,"error":{"code","message","hint"}}. Keys are in snake_case and in the words of the kernel and of Nova. What is for people is on the standard error.',
      ),
    ),
    part(
      'THE HOOK',
      body(
        '"hostdev hook install" copies one executable to /etc/libvirt/hooks/qemu.d/90-hostdev and writes hostdev.conf beside that folder. libvirt runs it at each step in the life of a guest. Only prepare and start can stop a guest, and only one that takes host devices. "hostdev hook remove" takes it out again, and so does the removal of the package.',
      ),
    ),
    part(
      'FILES',
      item('/etc/hostdev/hostdev.toml, /etc/hostdev/conf.d/*.toml', 'The configuration: hostdev.toml(5).'),
      item(
        '/run/hostdev',
        'The state: bindings (all may read it), journal and locks (of root), hook.log. It is of this boot of the kernel.',
      ),
      item(
        '/var/lib/hostdev/boot.table',
        'What the initramfs does with devices: written by "hostdev boot install", taken away by "hostdev boot remove".',
      ),
      item('/var/log/hostdev/record.log', 'Who changed which device, when, from what to what. "hostdev log" reads it.'),
      item(
        '/etc/libvirt/hooks/qemu.d/90-hostdev, /etc/libvirt/hooks/hostdev.conf',
        'The installed hook and what it starts.',
      ),
      item('/usr/bin/hostdev-node', 'The Node.js of the package hostdev-node, which hostdev prefers to /usr/bin/node.'),
    ),
    part(
      'ENVIRONMENT',
      item(
        'HOSTDEV_REMOVE',
        'With the value "force" the package is removed although devices are bound or guests have some. Nothing gives these devices back then; a hook that stays says so and fails nothing.',
      ),
      item('NO_COLOR', 'No colours on a terminal.'),
    ),
    part('SEE ALSO', '.BR hostdev (1),\n.BR hostdev.toml (5)\n'),
  ].join('');
}

/** The executables that nobody calls by hand. */
const native = (): string =>
  [
    head('hostdev-native', 1, 'what libvirt and hostdev execute'),
    part(
      'SYNOPSIS',
      '.B hostdev\\-native hook\n.RB [ \\-\\-conf\n.IR file ]\n.I name operation suboperation extra\n.br\n.B hostdev\\-native write\n.br\n.B hostdev\\-native boot\n.RB [ \\-\\-root\n.IR dir ]\n',
    ),
    part(
      'DESCRIPTION',
      body(
        'Called by programs. As hook it is what libvirt runs for each step in the life of a guest, from the copy that "hostdev hook install" has made. As write it is the helper of hostdev that writes to sysfs, because such a write may hang. As boot it is what the initramfs runs before udev, where "hostdev boot install" was: it binds the devices of /var/lib/hostdev/boot.table, writes what it did to the log of the kernel and to /run/hostdev/boot.json, and always exits 0.',
      ),
    ),
    part('SEE ALSO', '.BR hostdev (1),\n.BR hostdev (7)\n'),
  ].join('');

const node = (): string =>
  [
    head('hostdev-node', 1, 'the Node.js that hostdev runs on'),
    part('SYNOPSIS', '.B hostdev\\-node\n.RI [ option ...]\n.RI [ script ...]\n'),
    part(
      'DESCRIPTION',
      body(
        'The executable of the Node.js project, under a name of its own, so that it stands in the way of no other. hostdev(1) prefers it to /usr/bin/node. It takes what node takes: see "hostdev-node --help".',
      ),
    ),
    part('SEE ALSO', '.BR hostdev (1)\n'),
  ].join('');

/** The pages by file name. */
export const manual = (): Record<string, string> => ({
  'hostdev.1': program(),
  'hostdev-native.1': native(),
  'hostdev-node.1': node(),
  'hostdev.toml.5': configuration(),
  'hostdev.7': concepts(),
});
