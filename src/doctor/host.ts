/** The rest of the host: memory that may be locked, what secure boot locks, who draws on a GPU. */
import { bootFrameBuffers } from '../host/display.ts';
import { Look as Seen, Tables } from '../host/look.ts';
import type { ProcessFacts } from '../host/processes.ts';
import { bootDisplays } from './bootDisplay.ts';
import { commandFix, firmwareFix, NIXOS, nixosFix } from './fix.ts';
import { kernelWords } from './kernelLine.ts';
import type { Look } from './look.ts';
import { type Draft, finding } from './table.ts';

export const checkNative = ({ host }: Look): Draft[] =>
  host.native.missing === undefined
    ? []
    : [
        finding(
          'native-missing',
          'hostdev.node',
          `${host.native.missing}: reading works without it, changing does not`,
          [commandFix('apt-get install --reinstall hostdev', 'or npm i -g, of a package that is made for this system')],
        ),
      ];

export function checkMemlock(look: Look, libvirts: readonly ProcessFacts[]): Draft[] {
  if (libvirts.length === 0) look.missed('memlock', 'neither libvirtd nor virtqemud is running');
  return libvirts.flatMap((p): Draft[] => {
    if (p.memlock === null || p.mayRaiseLimits === null) {
      look.missed('memlock', `the limits of ${p.command} (pid ${p.pid}) cannot be read`);
      return [];
    }
    if (p.mayRaiseLimits || p.memlock === Number.POSITIVE_INFINITY) return [];
    return [
      finding(
        'memlock',
        `${p.command} (pid ${p.pid})`,
        `it may lock ${p.memlock} bytes and lacks CAP_SYS_RESOURCE; a guest with devices needs all its memory locked, and 1 GiB more, times the number of its devices where it has a vIOMMU`,
        [
          look.has(NIXOS)
            ? nixosFix(`systemd.services.${p.command}.serviceConfig.LimitMEMLOCK = "infinity";`)
            : {
                tool: 'systemd',
                where: `/etc/systemd/system/${p.command}.service.d/hostdev.conf`,
                line: '[Service]\nLimitMEMLOCK=infinity',
                present: true,
                after: `systemctl daemon-reload && systemctl restart ${p.command}`,
              },
        ],
      ),
    ];
  });
}

export function checkLockdown(look: Look): Draft[] {
  const { host } = look;
  const found: Draft[] = [];
  const modes = look.must(host.lockdown, 256);
  const mode = /\[(\w+)\]/.exec(modes ?? '')?.[1];
  const boot = look.quiet(`/${host.secureBoot}`, () => host.readBytes(host.secureBoot, 64));
  const secure = boot !== null && boot.length >= 5 && boot[4] === 1;
  const off = firmwareFix('Secure Boot: Disabled (or sign the modules that are refused: mokutil --import)');
  const cause = `/${host.lockdown} says ${mode}${secure ? '; secure boot is on' : ''}: modules from outside the distribution (variant drivers, vendor-reset, vGPU) must be signed`;
  const words = look.cmdline.filter((w) => w.startsWith('lockdown='));
  const fix = words.length > 0 ? kernelWords({ remove: words }) : [off];
  if (mode === 'integrity') found.push(finding('lockdown-integrity', `/${host.lockdown}`, cause, fix));
  else if (mode === 'confidentiality') found.push(finding('lockdown-confidentiality', `/${host.lockdown}`, cause, fix));
  else if (secure) found.push(finding('secure-boot', `/${host.secureBoot}`, 'the kernel is not locked down by it', []));
  return found;
}

/**
 * vfio-pci takes the firmware's framebuffer off a VGA device before it claims it since 6.0
 * (drivers/vfio/pci/vfio_pci_core.c, aperture helpers).
 */
const EVICTS_SINCE = 6;

export function checkDisplay(look: Look): Draft[] {
  const { host } = look;
  const found: Draft[] = [];
  const seen = new Seen(new Tables(host));
  if (seen.mustLines(host.iomem).length === 0) look.missed(`/${host.iomem}`, seen.unmeasured[0] ?? 'it is empty');
  const major = Number(/^(\d+)\./.exec(host.release ?? '')?.[1] ?? 0);
  for (const { name, address } of bootFrameBuffers(seen)) {
    const cause = `${name} lies in the memory of ${address} (/${host.iomem})`;
    found.push(
      major >= EVICTS_SINCE
        ? finding('firmware-framebuffer-evicted', address, cause, [])
        : finding(
            'firmware-framebuffer',
            address,
            cause,
            kernelWords({ add: ['initcall_blacklist=sysfb_init', 'video=efifb:off'] }),
          ),
    );
  }
  const boot = bootDisplays(look);
  for (const c of boot.length > 0 ? look.names(host.classLink('vtconsole')) : []) {
    const read = (file: string): string => look.text(host.classLink('vtconsole', `${c}/${file}`), 256) ?? '';
    if (read('bind') !== '1' || !read('name').includes('frame buffer')) continue;
    for (const d of boot)
      found.push(
        finding('console-on-gpu', d.address, `${c} draws on it: bind refuses the boot display while it does`, [
          commandFix(
            `echo 0 > ${host.absolute(host.classLink('vtconsole', `${c}/bind`))}`,
            'the screen goes dark; log in over the network first',
          ),
        ]),
      );
  }
  return found;
}
