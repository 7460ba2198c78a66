/**
 * What earlier ways of binding left behind: scripts that write new_id, devices taken by id, overrides that nobody owns.
 */
import { readBooks } from '../binding/books.ts';
import { observing } from '../binding/session.ts';
import { isErrno, isGone } from '../errors.ts';
import { ELF, fileFacts, fileHead } from '../host/files.ts';
import { readDirectives } from '../host/modprobe.ts';
import type { Address } from '../pci/address.ts';
import { heldBy } from '../pci/holders.ts';
import type { PciDevice } from '../pci/inventory.ts';
import { vfioNodes } from '../pci/nodes.ts';
import { parseOverride } from '../pci/override.ts';
import { type Unsafe, unsafeState } from '../store/ours.ts';
import { quote, safe } from '../text/safe.ts';
import { ofBootDisplay } from './bootDisplay.ts';
import { JUJU } from './cloudInit.ts';
import { bindFix, commandFix, shellWord } from './fix.ts';
import { rebuildThen, removeLine } from './initramfs.ts';
import type { Look } from './look.ts';
import { devicesNamed, MAX_SCRIPT, workFix } from './scriptFix.ts';
import { type Draft, type Fix, finding } from './table.ts';

/** Scripts of an admin's that run at boot, where they can be executed. */
const SCRIPTS = ['etc/rc.local', 'etc/rc.d/rc.local'];
/** What is read rather than executed: Unraid's, and cron's with its @reboot. */
const LISTS = ['boot/config/go', 'etc/crontab'];
const UNITS = 'etc/systemd/system';
const SCRIPT_FOLDERS = [
  'etc/udev/rules.d',
  UNITS,
  'etc/initramfs-tools/scripts/init-top',
  'etc/initramfs-tools/scripts/init-premount',
  'etc/initramfs-tools/scripts/local-top',
  'etc/init.d',
  'etc/local.d',
  'etc/cron.d',
  'var/spool/cron',
  'var/spool/cron/crontabs',
  'etc/rc.d',
];
/** Scripts that run at boot only where one of the others starts them. */
const COMMAND_FOLDERS = ['usr/local/sbin', 'usr/local/bin'];
const UDEV_RULES = 'etc/udev/rules.d';
const DRIVERCTL = 'etc/driverctl.d';

const MAX_FINDINGS = 16;

/** Lines of a script that do something with `pattern`, comments left out; a program that is no text has none. */
export function linesWith(look: Look, file: string, pattern: RegExp): { file: string; line: number; text: string }[] {
  let text: string | null;
  try {
    text = look.host.read(file, MAX_SCRIPT);
  } catch (e) {
    // No script is that long, and a folder is none.
    if (!isErrno(e, 'EFBIG', 'EISDIR')) look.missed(`/${file}`, (e as Error).message);
    return [];
  }
  if (text === null || text.includes('\0')) return [];
  return text.split('\n').flatMap((raw, i) => {
    const line = raw.trim();
    return line.length > 1024 || /^[#;]/.test(line) || !pattern.test(line)
      ? []
      : [{ file, line: i + 1, text: safe(line, 1024) }];
  });
}

/** Compiled programs lie beside scripts, and are large. */
const isProgram = (look: Look, file: string): boolean =>
  look.quiet(`/${file}`, () => fileHead(look.host, file, ELF.length))?.toString('latin1') === ELF;

const inFolders = (look: Look, folders: readonly string[]): string[] =>
  folders.flatMap((f) => look.names(f).map((n) => `${f}/${n}`));

/** All that runs at boot by itself, and an admin's commands; no programs. */
const scriptsOf = (look: Look): { boot: string[]; commands: string[] } => ({
  boot: [...new Set([...SCRIPTS, ...LISTS, ...inFolders(look, SCRIPT_FOLDERS)])].filter((f) => !isProgram(look, f)),
  commands: inFolders(look, COMMAND_FOLDERS).filter((f) => !isProgram(look, f)),
});

export function checkScripts(look: Look): Draft[] {
  const { boot, commands } = scriptsOf(look);
  const found = [...boot, ...commands].flatMap((file) => {
    const lines = linesWith(look, file, /\bnew_id\b/);
    return lines[0] === undefined ? [] : [{ file, first: lines[0], lines }];
  });
  return found.slice(0, MAX_FINDINGS).map(({ file, first, lines }) => {
    const idle =
      SCRIPTS.includes(file) && look.quiet(`/${file}`, () => fileFacts(look.host, file))?.executable === false;
    const juju = look.has(JUJU) ? " and Juju's cloudinit-userdata" : '';
    const meant = devicesNamed(look, look.text(file, MAX_SCRIPT) ?? '');
    return finding(
      'new-id-script',
      `/${file}:${first.line}`,
      `"${first.text.slice(0, 200)}"${idle ? ' (the file is not executable, so it is not run now)' : ''}; ids cannot tell two identical devices apart. Bind by address instead, and take the file out of cloud-init's write_files${juju} where that makes it`,
      [
        ...withoutWork(look, file, lines),
        meant.length > 0 ? { bind: meant, when: MEANT } : bindFix(['ADDRESS…'], MEANT),
      ],
    );
  });
}

const MEANT = 'for the devices that it meant, once it is out';

/** All that a file does with devices, taken out of it, by what kind of file it is. */
function withoutWork(look: Look, file: string, lines: readonly { file: string; line: number; text: string }[]): Fix[] {
  if (file.startsWith(`${UDEV_RULES}/`))
    return lines.map((l) => ({ ...removeLine(look, l), after: 'udevadm control --reload' }));
  if (file.startsWith(`${UNITS}/`)) {
    const unit = file.slice(UNITS.length + 1);
    return [
      commandFix(
        `systemctl disable ${shellWord(unit)}`,
        `where the unit does more, only what it does with devices: systemctl edit --full ${shellWord(unit)}`,
      ),
    ];
  }
  return workFix(
    look,
    file,
    `/${file}`,
    file.startsWith('etc/initramfs-tools') ? rebuildThen(look, 'reboot') : 'reboot',
  );
}

const READ_MS = 1000;
/** Each device that does not answer costs its deadline. */
const MAX_STUCK = 3;

/** The driver_override of each device that has one. It takes the device's lock, so it is read with a deadline. */
async function overrides(look: Look): Promise<Map<Address, string | null>> {
  const { host } = look;
  const read = new Map<Address, string | null>();
  let stuck = 0;
  await observing(host, { deadlineMs: 10 * READ_MS }, async ({ writer }) => {
    for (const d of look.inventory.devices) {
      const path = host.device(d.address, 'driver_override');
      try {
        read.set(d.address, parseOverride(await writer.read(path, READ_MS)));
      } catch (e) {
        if (isGone(e)) continue;
        look.missed(
          `/${path}`,
          isErrno(e, 'ETIMEDOUT') ? 'it did not answer: something holds the device' : (e as Error).message,
        );
        stuck += 1;
        if (stuck >= MAX_STUCK) return;
      }
    }
  });
  return read;
}

/** Our state where somebody else can write to it: every changing command refuses. */
function notOurs(look: Look): Draft[] {
  const found: Unsafe[] = [];
  look.quiet(look.host.absolute(look.host.state), () => unsafeState(look.host, found));
  return found.map(({ path, why, fix }) =>
    finding('run-not-ours', path, `it ${why}`, [
      commandFix(fix, 'after a look at who made it and what it says; or remove it'),
    ]),
  );
}

export async function checkOverrides(look: Look): Promise<Draft[]> {
  const { host } = look;
  const { books, bad } = readBooks(host);
  const unreadable = bad.map((b) =>
    finding('books-unreadable', host.absolute(host.bindings), `${b.file} ${b.why}`, [
      commandFix(`ls -l ${host.absolute(host.bindings)}`, 'repair or remove the file that is named'),
    ]),
  );
  const ours = new Set([...books.map((b) => b.address), ...bad.flatMap((b) => b.addresses)]);
  const driverctl = new Set(look.names(DRIVERCTL).flatMap((n) => /^pci-(.+)$/.exec(n)?.[1] ?? []));
  const found: Draft[] = [...notOurs(look), ...unreadable];
  const all = await overrides(look);
  let setters: Setter[] | null = null;
  for (const d of look.inventory.devices) {
    const override = all.get(d.address);
    if (override === undefined || ours.has(d.address)) continue;
    if (override === null) found.push(...boundById(look, d));
    else if (driverctl.has(d.address))
      found.push(
        finding(
          'override-pinned',
          d.address,
          `driverctl keeps it on ${quote(override)} (/${DRIVERCTL}/pci-${d.address})`,
        ),
      );
    else {
      setters ??= overrideSetters(look);
      const by = setters.find((s) => s.devices.length === 0 || s.devices.includes(d));
      if (by !== undefined)
        found.push(
          finding(
            'override-pinned',
            d.address,
            `driver_override is ${quote(override)}; /${by.file}:${by.line} sets overrides`,
          ),
        );
      else if (!(await isHeld(look, d))) found.push(leftover(d, override));
    }
  }
  return found;
}

/**
 * A line of a file that sets overrides at boot, and the devices that the file names; none where it finds them by
 * itself.
 */
type Setter = { file: string; line: number; devices: PciDevice[] };

/** udev's rules, boot scripts, and what modprobe runs instead of loading vfio-pci (`install`). */
function overrideSetters(look: Look): Setter[] {
  const run = readDirectives(look.host)
    .directives.filter((d) => d.kind === 'install')
    .flatMap((d) => [...d.rest.matchAll(/(?<![\w./-])\/([\w./+@-]{2,256})/g)].map(([, file = '']) => file))
    .filter((f) => !f.split('/').includes('..') && !isProgram(look, f));
  const { boot, commands } = scriptsOf(look);
  const started = boot.flatMap((f) => linesWith(look, f, /\//).map((l) => l.text)).join('\n');
  const own = commands.filter((f) => started.includes(`/${f}`));
  return [...new Set([...boot, ...own, ...run])].flatMap((file) => {
    const [first] = linesWith(look, file, /driver_override/);
    if (first === undefined) return [];
    return [{ file, line: first.line, devices: devicesNamed(look, look.text(file, MAX_SCRIPT) ?? '') }];
  });
}

/** vfio-pci's one static id is for overrides only, and pci-stub has none: without an override an id was added. */
function boundById(look: Look, d: PciDevice): Draft[] {
  if (d.driver !== 'vfio-pci' && d.driver !== 'pci-stub') return [];
  const id = `${d.vendor_id} ${d.product_id}`;
  const boot = ofBootDisplay(look, [d]).length > 0;
  return [
    finding(
      'bound-by-id',
      d.address,
      `on ${d.driver} without driver_override: new_id or ids= has ${d.vendor_id}:${d.product_id}; the next unbound device of these ids goes there too${boot ? '; it is the boot display, or goes with it' : ''}`,
      [
        commandFix(
          `echo ${id} > ${look.host.absolute(look.host.driver(d.driver, 'remove_id'))}`,
          'ENODEV says that it came from ids= or is gone already',
        ),
        boot
          ? commandFix(`hostdev unbind --to-host ${d.address}`, 'gives it back to the host')
          : { bind: [d], when: 'makes it one by address' },
      ],
    ),
  ];
}

/** libvirt's own bindings have an owner too: the process that holds the group. */
async function isHeld(look: Look, d: PciDevice): Promise<boolean> {
  try {
    const found = await heldBy(look.host, vfioNodes(look.host, d), READ_MS);
    if (found.unreadable > 0 && found.holders.length === 0)
      look.missed(
        'open files',
        `${found.unreadable} processes may not be looked at: whether a guest has a device needs root`,
      );
    return found.holders.length > 0;
  } catch (e) {
    look.missed('open files', (e as Error).message);
    return false;
  }
}

function leftover(d: PciDevice, override: string): Draft {
  const now = d.driver === null ? 'it has no driver' : `it is on ${d.driver}`;
  const next = d.driver === override ? 'it stays there at every probe' : 'the next probe brings it there';
  return finding(
    'override-leftover',
    d.address,
    `driver_override is ${quote(override)}, ${now}; ${next}, and neither hostdev's books, driverctl, udev, a boot script nor a running guest know of it (libvirt may keep a detached device so)`,
    [commandFix(`hostdev unbind --to-host ${d.address}`, 'brings it to its host driver; or leave it, if it is meant')],
  );
}
