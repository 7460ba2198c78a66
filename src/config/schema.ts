/**
 * Every key of a configuration, once: what it may be, what it means, where hostdev differs from Nova and why. The
 * checks, the suggestions and the page docs/reference/config.md are made from it.
 */

import { ALLOWABLE_GUARDS } from './allowable.ts';
import { HOOK_DEFAULTS, UNMANAGED } from './hookDefaults.ts';
import type { KeyRule, Section } from './keyRule.ts';
import { WISH_SECTIONS } from './wishSchema.ts';

/** src/placement/names.ts says what they do. */
export const TRAIT_BLANKS = ['trim', 'nova'] as const;

const SAID_BOOLEAN =
  'true or false, as a boolean, as the number 1 or 0, or as one of the texts 1 t true on y yes, 0 f false off n no (any case, trimmed)';
const MAX_DEADLINE = 600;

export const SCHEMA = {
  device_spec: {
    list: true,
    text: 'Which devices may be given out. The first spec that a device matches is the one that counts, whole. Without any, nothing may; an empty one is every device.',
    novaName: '[pci] device_spec; older: [pci] passthrough_whitelist, [DEFAULT] pci_passthrough_whitelist',
    open: true,
    keys: {
      vendor_id: {
        types: ['text'],
        otherwise: 'any',
        rule: '`*`, or a hex number of at most ffff: upper case, fewer digits, `0x` and blanks around it are fine',
        nova: 'what is no text is a plain mistake, where Nova crashes',
      },
      product_id: {
        types: ['text'],
        otherwise: 'any',
        rule: 'as vendor_id',
        nova: 'as vendor_id; blanks around `*` are refused here, but not there, as in Nova',
      },
      address: {
        types: ['text', 'table'],
        otherwise: 'any',
        rule: 'a text: `domain:bus:slot.function` in hex, right-aligned at the colons, a field missing or `*` being any; or a table of regular expressions `domain`, `bus`, `slot`, `function`, anchored at the start, against lower-case text. A single PF also takes its VFs. At most ffff:ff:1f.7; not together with devname',
        nova: 'an unknown key in the table is ignored by Nova without a word: said here; the regular expressions are bounded in time',
      },
      devname: {
        types: ['text'],
        otherwise: 'any',
        rule: 'the name of a network interface; not together with address, nor with report_in_placement. A name changes with the slot or the firmware: an address does not',
        nova: '',
      },
      physical_network: {
        types: ['text'],
        otherwise: 'none',
        rule: "Neutron's physical network; part of the pool. Such a device is not reported to Placement; `null` (in JSON) and the empty text are no network",
        nova: '',
      },
      trusted: {
        types: ['text', 'boolean'],
        otherwise: 'not said',
        rule: 'compared with what a port asks for, without regard to case; `"true"` is the only text that a trusted port finds; part of the pool',
        nova: 'a boolean is a tag like any other for Nova, and no port finds it: said here',
      },
      remote_managed: {
        types: ['text', 'boolean', 'number'],
        otherwise: 'false',
        rule: 'a VF of a DPU, programmed at the other side; only a device with a serial number in its VPD matches. A PF is refused',
        nova: 'Nova reads a file that no kernel has and refuses every single PF address: done here as meant',
      },
      managed: {
        types: ['text', 'boolean', 'number'],
        otherwise: 'true',
        rule: `${SAID_BOOLEAN}. False: libvirt does not bind the device; the host must have. Part of the pool`,
        nova: '',
      },
      live_migratable: {
        types: ['text', 'boolean', 'number'],
        otherwise: 'not said',
        rule: `${SAID_BOOLEAN}. Part of the pool, and a trait`,
        nova: '',
      },
      one_time_use: {
        types: ['text', 'boolean', 'number'],
        otherwise: 'false',
        rule: `${SAID_BOOLEAN}. Given out once, then kept until an operator has cleaned it; for PFs and plain devices only`,
        nova: 'Nova keeps it in Placement alone, and without pci_in_placement hands the device out again: kept on the host here',
      },
      resource_class: {
        types: ['text'],
        otherwise: 'CUSTOM_PCI_<VENDOR>_<PRODUCT>',
        rule: 'the class in Placement: upper-cased; a standard class or one that begins with CUSTOM_ stays, otherwise CUSTOM_ and every run of other characters one `_`. Not part of the pool',
        nova: 'a CUSTOM_ name with characters that Placement refuses is sent by Nova as it is: made one that it takes here, and told',
      },
      traits: {
        types: ['text'],
        otherwise: 'none',
        rule: 'names separated by commas, normalised as the class. Not part of the pool',
        nova: "with blanks, as in Nova's own example `blue, big`, Nova's names are CUSTOM_BLUE and CUSTOM__BIG, which nobody asks for: CUSTOM_BIG here, unless `[pci] trait_blanks` is `nova`",
      },
    },
  },
  alias: {
    list: true,
    text: 'Named requests, for `claim` and for flavors. Several of one name are alternatives; their device_type and numa_policy must be the same.',
    novaName: '[pci] alias; older: [DEFAULT] pci_alias',
    open: false,
    keys: {
      name: {
        types: ['text'],
        required: true,
        otherwise: 'must be given',
        rule: '1 to 256 characters, trimmed, upper and lower case differ',
        nova: "a name with ':' or ',' can never be asked for, and Nova takes it: told here",
      },
      vendor_id: {
        types: ['text'],
        otherwise: 'any',
        rule: 'exactly 4 hex digits; needed with product_id, unless pci_in_placement and resource_class',
        nova: '',
      },
      product_id: { types: ['text'], otherwise: 'any', rule: 'as vendor_id', nova: '' },
      capability_type: {
        types: ['text'],
        values: ['pci'],
        otherwise: 'pci',
        rule: '`pci`, the only one there is',
        nova: 'with it Nova finds no pool, ever: taken here as what it says',
      },
      device_type: {
        types: ['text'],
        values: ['type-PCI', 'type-PF', 'type-VF'],
        otherwise: 'type-PCI and type-VF',
        rule: "`type-PCI`, `type-PF` or `type-VF`. Without it VFs are given too, whatever Nova's guide says",
        nova: 'repeated aliases that leave it out get an opaque error from Nova: a plain one here',
      },
      numa_policy: {
        types: ['text'],
        values: ['required', 'socket', 'preferred', 'legacy'],
        otherwise: 'legacy',
        rule: '`required`, `socket`, `preferred` or `legacy`',
        nova: '',
      },
      resource_class: { types: ['text'], otherwise: 'from the ids', rule: 'as in device_spec', nova: '' },
      traits: { types: ['text'], otherwise: 'none', rule: 'as in device_spec; all of them are required', nova: '' },
      live_migratable: { types: ['text'], otherwise: 'not asked for', rule: 'as in device_spec, as a text', nova: '' },
    },
  },
  pci: {
    list: false,
    text: 'How specs and aliases are read.',
    novaName: null,
    open: false,
    keys: {
      report_in_placement: {
        types: ['boolean'],
        otherwise: 'false',
        rule: 'devices are reported to Placement: devname, a PF beside its VFs, and VFs of one PF with different classes or traits are refused',
        nova: '',
      },
      pci_in_placement: {
        types: ['boolean'],
        otherwise: 'false',
        rule: 'Placement allocates what an alias asks for: an alias may have only a resource_class, and only one meaning',
        nova: 'in nova.conf it stands in [filter_scheduler]',
      },
      trait_blanks: {
        types: ['text'],
        values: TRAIT_BLANKS,
        otherwise: 'trim',
        rule: 'what becomes of blanks around the names in `traits`: `trim` takes them off, `nova` makes them part of the name. Take `nova` where Nova computes report the same devices. `placement show` and `claim` have it as --trait-blanks, for a nova.conf',
        nova: null,
      },
      starlingx_default_aliases: {
        types: ['boolean'],
        otherwise: 'false',
        rule: 'the aliases that StarlingX defines by itself (qat-vf, qat-dh895xcc-vf, qat-c62x-vf) are there beside yours, which go first',
        nova: null,
      },
      hypervisor_hostname: {
        types: ['text'],
        otherwise: "the host's name",
        rule: 'the name before the address in the name of a provider, 1 to 187 characters',
        nova: "libvirt's host name in Nova",
      },
    },
  },
  hook: {
    list: false,
    text: "What libvirt's hook does.",
    novaName: null,
    open: false,
    keys: {
      unmanaged: {
        types: ['text'],
        values: UNMANAGED,
        otherwise: HOOK_DEFAULTS.unmanaged,
        rule: "for a device with managed='no': `bind` it before the guest and give it back after, `check` that it is bound, or `ignore` it",
        nova: null,
      },
      prepare_seconds: {
        types: ['number'],
        range: [1, MAX_DEADLINE],
        otherwise: String(HOOK_DEFAULTS.prepare_seconds),
        rule: "the time that `prepare` may take, waits for locks included; taken over by 'hostdev hook install'",
        nova: null,
      },
      start_seconds: {
        types: ['number'],
        range: [1, MAX_DEADLINE],
        otherwise: String(HOOK_DEFAULTS.start_seconds),
        rule: 'the same for `start`',
        nova: null,
      },
      other_seconds: {
        types: ['number'],
        range: [1, MAX_DEADLINE],
        otherwise: String(HOOK_DEFAULTS.other_seconds),
        rule: 'the same for every other operation; a release that takes longer goes on by itself',
        nova: null,
      },
    },
  },
  allow: {
    list: true,
    text: 'Where a guard refuses and you know better: what `--allow` is for an admin, for the hook.',
    novaName: null,
    open: false,
    keys: {
      device: {
        types: ['text'],
        required: true,
        otherwise: 'must be given',
        rule: 'the full address of one device, `0000:01:00.0`',
        nova: null,
      },
      guard: {
        types: ['text'],
        values: ALLOWABLE_GUARDS,
        required: true,
        otherwise: 'must be given',
        rule: `one of ${ALLOWABLE_GUARDS.map((g) => `\`${g}\``).join(', ')}`,
        nova: null,
      },
      domain: {
        types: ['text'],
        required: true,
        otherwise: 'must be given',
        rule: "the domain's name or UUID; `*` is any",
        nova: null,
      },
    },
  },
  ...WISH_SECTIONS,
} as const satisfies Record<string, Section>;

export type SectionName = keyof typeof SCHEMA;

/** The rules of a section, for lookup by any text. */
export const keysOf = (section: SectionName): Readonly<Record<string, KeyRule>> => SCHEMA[section].keys;

/** Names of before, or from other tools, for which there is one here. */
export const OTHER_NAMES: Partial<Record<SectionName, Record<string, readonly string[]>>> = {
  // The grammar of 2013 had device_id where vendor_id is now; others mean the product.
  device_spec: {
    device_id: ['vendor_id', 'product_id'],
    vendor: ['vendor_id'],
    device: ['product_id'],
    physnet: ['physical_network'],
  },
  alias: { device_id: ['product_id'], dev_type: ['device_type'], policy: ['numa_policy'] },
};

/**
 * The options of nova.conf that hostdev reads; `section` as oslo compares it. In order: the newest name of each first.
 */
export const NOVA_OPTIONS = [
  { section: 'pci', name: 'device_spec', is: 'device_spec' },
  { section: 'pci', name: 'passthrough_whitelist', is: 'device_spec' },
  { section: 'DEFAULT', name: 'pci_passthrough_whitelist', is: 'device_spec' },
  { section: 'pci', name: 'alias', is: 'alias' },
  { section: 'DEFAULT', name: 'pci_alias', is: 'alias' },
  { section: 'pci', name: 'report_in_placement', is: 'report_in_placement' },
  { section: 'filter_scheduler', name: 'pci_in_placement', is: 'pci_in_placement' },
] as const;
