/** `<domain>` around its devices, section by section. */

import type { Version } from '../version.ts';
import type { Grammar } from './grammar.ts';
import { acpiIndexGrammar, any, EMPTY, isNewer, later, POSITIVE, SIZE, UNIT, VIRTIO_OPTIONS } from './shapes.ts';
import { ANY, ON_OFF, YES_NO } from './values.ts';

const once = (names: readonly string[], grammars: Record<string, Grammar>): Record<string, Grammar | null> => ({
  ...any(names),
  ...grammars,
});

const ARCHES =
  /^(aarch64|alpha|armv6l|armv7l|cris|i686|ia64|lm32|loongarch64|m68k|microblaze(el)?|mips(64)?(el)?|openrisc|parisc(64)?|ppc|ppc64|ppc64le|ppcemb|riscv32|riscv64|s390x?|sh4(eb)?|sparc(64)?|unicore32|x86_64|xtensa(eb)?)$/;

/** From 1 to 65535: unsignedShort with digits alone. */
const COUNT_CPU = /^0*([1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])$/;

const MEMORY: Grammar = { attributes: { unit: UNIT, dumpCore: ON_OFF }, text: SIZE };

const osHvm = (libvirt: Version | null): Grammar => ({
  attributes: { firmware: /^(bios|efi)$/ },
  children: once(['firmware', 'nvram', 'kernel', 'initrd', 'cmdline', 'dtb', 'bootmenu', 'smbios', 'bios'], {
    type: { attributes: { arch: ARCHES, machine: /^[a-zA-Z0-9_.-]+$/ }, text: /^hvm$/ },
    acpi: {
      children: {
        table: {
          attributes: { type: later(libvirt, ['raw']).length > 0 ? /^(raw|rawset|slic|msdm)$/ : /^slic$/ },
          required: ['type'],
          text: /^([/]|[a-zA-Z]:\\)./,
        },
      },
      many: later(libvirt, ['table']),
      open: isNewer(libvirt),
    },
    boot: { attributes: { dev: /^(hd|fd|cdrom|network)$/ }, required: ['dev'] },
    loader: {
      attributes: {
        readonly: YES_NO,
        secure: YES_NO,
        type: /^(rom|pflash)$/,
        stateless: YES_NO,
        // From 9.2.0 on.
        format: ANY,
      },
      text: /^([/].+|[a-zA-Z]:\\.+|[ \t\r\n]*)$/,
    },
  }),
  needs: ['type'],
  many: ['boot'],
});

const FEATURES = [
  'apic hap hyperv kvm xen viridian pvspinlock capabilities pmu vmport gic smm hpt vmcoreinfo htm nested-hv msrs',
  'ccf-assist cfpc sbbc ibs tcg privnet',
].flatMap((names) => names.split(' '));

const features = (libvirt: Version | null): Grammar => ({
  children: once([...FEATURES, ...later(libvirt, ['aia', 'async-teardown', 'ps2', 'ras'])], {
    acpi: EMPTY,
    pae: EMPTY,
    ioapic: { attributes: { driver: /^(qemu|kvm)$/ }, required: ['driver'] },
  }),
  open: isNewer(libvirt),
});

const DEVICES_MANY = [
  'disk controller lease filesystem interface input sound audio hostdev graphics video console parallel serial channel',
  'smartcard hub redirdev redirfilter rng tpm shmem memory panic',
].flatMap((names) => names.split(' '));
const DEVICES_ONCE = ['emulator', 'nvram', 'vsock'];
const BALLOON: Grammar = {
  attributes: {
    model: /^(virtio|virtio-transitional|virtio-non-transitional|xen|none)$/,
    autodeflate: ON_OFF,
    freePageReporting: ON_OFF,
  },
  required: ['model'],
  children: {
    ...any(['alias', 'address']),
    acpi: acpiIndexGrammar(false),
    driver: { attributes: VIRTIO_OPTIONS },
    stats: { attributes: { period: POSITIVE }, required: ['period'] },
  },
};

/** Several watchdogs from 9.1.0 on; several <iommu> are a rule of their own. */
const devices = (libvirt: Version | null): Grammar => {
  const more = later(libvirt, ['crypto', 'pstore']);
  return {
    children: once([...DEVICES_MANY, ...DEVICES_ONCE, 'watchdog', 'iommu', ...more], { memballoon: BALLOON }),
    many: [...DEVICES_MANY, 'iommu', ...later(libvirt, ['watchdog', 'crypto'])],
    open: isNewer(libvirt),
  };
};

const CPU: Grammar = {
  attributes: {
    mode: /^(custom|host-model|host-passthrough|maximum)$/,
    match: /^(minimum|exact|strict)$/,
    check: /^(none|partial|full)$/,
    migratable: ON_OFF,
    // From 11.0.0 on.
    deprecated_features: ON_OFF,
  },
  children: any(['model', 'vendor', 'topology', 'cache', 'maxphysaddr', 'feature', 'numa']),
  many: ['feature'],
};

const DOMAIN_ONCE = [
  'title description metadata genid uuid clock maxMemory currentMemory memoryBacking vcpus iothreads iothreadids',
  'defaultiothread blkiotune memtune cputune numatune resource on_poweroff on_reboot on_crash on_lockfailure pm perf',
  'idmap keywrap launchSecurity bootloader bootloader_args os',
].flatMap((names) => names.split(' '));

const TYPES = /^(qemu|kqemu|kvm|xen|lxc|uml|openvz|test|vmware|hyperv|vbox|phyp|vz|bhyve|hvf)$/;

/** The drivers' own elements: qemu:commandline, xen:commandline, lxc:namespace … */
const FOREIGN = ['qemu', 'xen', 'lxc', 'bhyve', 'vmware'].map((d) => `http://libvirt.org/schemas/domain/${d}/1.0`);

/** The domain around its devices; elements of other namespaces are the drivers' own business, and `<iommufd>` is a rule of its own. */
export function domainGrammar(libvirt: Version | null, hvm: boolean): Grammar {
  const more = later(libvirt, ['throttlegroups']);
  return {
    attributes: { type: TYPES, id: /^\d{1,10}$/ },
    required: ['type'],
    children: once([...DOMAIN_ONCE, 'sysinfo', 'seclabel', 'iommufd', ...more], {
      name: { text: /^[^\n]+$/ },
      memory: MEMORY,
      currentMemory: { attributes: { unit: UNIT }, text: SIZE },
      vcpu: {
        attributes: { placement: /^(static|auto)$/, cpuset: ANY, current: COUNT_CPU },
        text: COUNT_CPU,
      },
      features: features(libvirt),
      cpu: CPU,
      devices: devices(libvirt),
      ...(hvm
        ? {
            os: {
              ...osHvm(libvirt),
              children: { ...osHvm(libvirt).children, ...any(later(libvirt, ['shim'])) },
              open: isNewer(libvirt),
            },
          }
        : {}),
    }),
    needs: ['name', 'os'],
    many: ['sysinfo', 'seclabel'],
    foreign: FOREIGN,
    open: isNewer(libvirt),
  };
}
