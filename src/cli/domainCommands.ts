/** The commands about domains, pools, the hook and what is behind them: the second half of commands.ts. */
import type { Command } from './command.ts';
import { DEVICE, EDITS, FILE, SETUP, TRAIT_BLANKS, WISH } from './optionSets.ts';

export const DOMAIN_COMMANDS: readonly Command[] = [
  {
    name: 'domain plan',
    args: [FILE, { ...DEVICE, optional: true, many: true }],
    text: "a domain's XML with devices in it, or out again (- is stdin); changes nothing",
    takes: [...SETUP, 'allow', 'connect'],
    own: {
      ...EDITS,
      libvirt: { type: 'string', value: 'X.Y.Z', text: 'for this libvirt instead of the one that is here' },
      qemu: { type: 'string', value: 'X.Y.Z', text: 'for this QEMU' },
      diff: { type: 'boolean', text: 'print a diff instead' },
      fragments: { type: 'boolean', text: "print only the devices, for 'virsh attach-device'" },
    },
    load: async () => (await import('./domainPlan.ts')).domainPlan,
  },
  {
    name: 'domain define',
    args: [FILE, { ...DEVICE, optional: true, many: true }],
    text: "define this domain (- is stdin), with the changes of 'domain plan', and read it back (exit 3: not kept as given)",
    changes: 'files',
    takes: ['dry-run', 'config', 'allow', 'connect'],
    own: EDITS,
    load: async () => (await import('./domainDefine.ts')).domainDefine,
  },
  {
    name: 'config check',
    args: [],
    text: 'every mistake of the configuration with its place, and what each device_spec takes (exit 3: mistakes)',
    takes: SETUP,
    load: async () => (await import('./config.ts')).configCheck,
  },
  {
    name: 'pool list',
    args: [],
    text: 'the pools of the configured devices: what is free, what is not and why',
    takes: [...SETUP, 'connect'],
    load: async () => (await import('./pool.ts')).poolList,
  },
  {
    name: 'claim',
    args: [{ name: 'REQUEST' }],
    text: 'the devices that a request such as "gpu:1, nic:2" would get (with -n; keeping them comes later)',
    takes: ['dry-run', ...SETUP, 'connect'],
    needs: ['dry-run'],
    own: WISH,
    load: async () => (await import('./claim.ts')).claim,
  },
  {
    name: 'placement show',
    args: [],
    text: 'what OpenStack Placement would be told of the configured devices',
    takes: [...SETUP, 'connect'],
    own: {
      'trait-blanks': TRAIT_BLANKS,
      'hypervisor-hostname': {
        type: 'string',
        value: 'NAME',
        text: "the compute node, where it is not this host's name",
      },
    },
    load: async () => (await import('./placement.ts')).placementShow,
  },
  {
    name: 'domain check',
    args: [FILE],
    text: "what is wrong with this domain XML, by our rules and libvirt's schema (- is stdin; exit 3: refused)",
    takes: ['connect'],
    own: {
      'ask-libvirt': {
        type: 'boolean',
        text: "ask libvirt's parser too, about a copy without what hostdev judges itself; versions are that libvirt's",
      },
      libvirt: { type: 'string', value: 'X.Y.Z', text: 'judge for this libvirt, and ask nothing of this host' },
      qemu: { type: 'string', value: 'X.Y.Z', text: 'judge for this QEMU, and ask nothing of this host' },
    },
    load: async () => (await import('./domainCheck.ts')).domainCheck,
  },
  {
    name: 'viommu suggest',
    args: [FILE],
    text: 'the vIOMMU for this domain XML, with reasons (- is stdin; exit 3: there is none)',
    own: {
      model: { type: 'string', value: 'MODEL', text: 'auto (default), intel, virtio, smmuv3 or amd' },
      libvirt: { type: 'string', value: 'X.Y.Z', text: 'for this libvirt, and ask nothing of this host' },
      qemu: { type: 'string', value: 'X.Y.Z', text: 'for this QEMU, and ask nothing of this host' },
    },
    load: async () => (await import('./viommu.ts')).viommuSuggest,
  },
  {
    name: 'hook run',
    args: [{ name: 'NAME' }, { name: 'OP' }, { name: 'SUBOP' }, { name: 'EXTRA' }],
    text: "what libvirt's qemu hook calls (domain XML on stdin)",
    isHook: true,
    own: { 'deadline-ms': { type: 'string', value: 'MS', text: 'time for all of it' } },
    load: async () => (await import('./hookRun.ts')).hookRun,
  },
  {
    name: 'hook test',
    args: [FILE],
    takes: ['allow', 'connect'],
    text: 'what the hook would do for this domain XML (- is stdin)',
    load: async () => (await import('./hook.ts')).hookTest,
  },
  {
    name: 'hook install',
    args: [],
    text: 'install the hook for libvirt',
    changes: 'files',
    takes: ['dry-run'],
    load: async () => (await import('./hook.ts')).hookInstall,
  },
  {
    name: 'hook remove',
    args: [],
    text: 'remove it',
    changes: 'files',
    takes: ['dry-run'],
    own: {
      uninstall: {
        type: 'boolean',
        text: 'as before the program itself is removed: only if it is its own, and no device is bound or with a guest',
      },
    },
    load: async () => (await import('./hook.ts')).hookRemove,
  },
  {
    name: 'hook status',
    args: [],
    text: 'whether libvirt finds and can run it (exit 3: no)',
    load: async () => (await import('./hook.ts')).hookStatusCommand,
  },
  {
    name: 'simulate',
    args: [{ name: 'FILE|-', optional: true }],
    text: "Nova's answers for a host described in a file: specs, aliases, pools, claims, Placement",
    load: async () => (await import('./simulate.ts')).simulateCommand,
  },
];
