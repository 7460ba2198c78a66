/** Every command: grammar and help in one place; what a command needs is loaded when it runs. */
import type { Command } from './command.ts';

const ONE_DEVICE = 'DEV';
const DEVICES = 'DEV…';
const TRAIT_BLANKS = {
  type: 'string',
  value: 'trim|nova',
  text: 'blanks around the names in traits: taken off, or part of the name as in Nova',
} as const;
const MANY = Number.MAX_SAFE_INTEGER;

export const COMMANDS: readonly Command[] = [
  {
    name: 'list',
    args: '',
    words: [0, 0],
    text: 'PCI devices with group, driver and type',
    load: async () => (await import('./list.ts')).list,
  },
  {
    name: 'show',
    args: ONE_DEVICE,
    words: [1, 1],
    text: 'everything about one device',
    load: async () => (await import('./show.ts')).show,
  },
  {
    name: 'group list',
    args: '',
    words: [0, 0],
    text: 'IOMMU groups, and what keeps each from a guest',
    load: async () => (await import('./group.ts')).groupList,
  },
  {
    name: 'group show',
    args: 'N|DEV',
    words: [1, 1],
    text: 'one IOMMU group',
    load: async () => (await import('./group.ts')).groupShow,
  },
  {
    name: 'bind',
    args: DEVICES,
    words: [1, MANY],
    text: "bind devices to VFIO: the kernel's variant driver, or vfio-pci",
    changes: true,
    own: { driver: { type: 'string', value: 'NAME', text: "this driver instead (auto: the kernel's best)" } },
    load: async () => (await import('./bind.ts')).bind,
  },
  {
    name: 'unbind',
    args: DEVICES,
    words: [1, MANY],
    text: 'bring devices back to where they were before hostdev',
    changes: true,
    own: { 'to-host': { type: 'boolean', text: 'also devices that hostdev did not bind: to their host driver' } },
    load: async () => (await import('./bind.ts')).unbind,
  },
  {
    name: 'status',
    args: '',
    words: [0, 0],
    text: 'what hostdev bound, for whom, and what drifted (exit 3)',
    load: async () => (await import('./status.ts')).status,
  },
  {
    name: 'config check',
    args: '',
    words: [0, 0],
    text: 'every mistake of the configuration with its place, and what each device_spec takes (exit 3: mistakes)',
    takes: ['config', 'inventory'],
    load: async () => (await import('./config.ts')).configCheck,
  },
  {
    name: 'pool list',
    args: '',
    words: [0, 0],
    text: 'the pools of the configured devices: what is free, what is not and why',
    takes: ['config', 'inventory'],
    load: async () => (await import('./pool.ts')).poolList,
  },
  {
    name: 'claim',
    args: 'REQUEST',
    words: [1, 1],
    text: 'the devices that a request such as "gpu:1, nic:2" would get (with -n; keeping them comes later)',
    dryRun: true,
    takes: ['config', 'inventory'],
    own: {
      numa: { type: 'string', value: 'N,…', text: "the host's NUMA nodes that the guest is on" },
      policy: {
        type: 'string',
        value: 'POLICY',
        text: "required, socket, preferred or legacy, before the aliases' own",
      },
      sockets: { type: 'string', value: 'N:S,…', text: 'the socket of each NUMA node, for the policy socket' },
      'group-policy': { type: 'string', value: 'POLICY', text: 'none, or isolate: each device from another provider' },
      spread: {
        type: 'boolean',
        text: 'from the PFs with the fewest devices in use, instead of one PF after the other',
      },
    },
    load: async () => (await import('./claim.ts')).claim,
  },
  {
    name: 'placement show',
    args: '',
    words: [0, 0],
    text: 'what OpenStack Placement would be told of the configured devices',
    takes: ['config', 'inventory'],
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
    name: 'hook run',
    args: 'NAME OP SUBOP EXTRA',
    words: [4, 4],
    text: "what libvirt's qemu hook calls (domain XML on stdin)",
    own: { 'deadline-ms': { type: 'string', value: 'MS', text: 'time for all of it' } },
    load: async () => (await import('./hookRun.ts')).hookRun,
  },
  {
    name: 'hook test',
    args: 'FILE',
    words: [1, 1],
    text: 'what the hook would do for this domain XML (- is stdin)',
    load: async () => (await import('./hook.ts')).hookTest,
  },
  {
    name: 'hook install',
    args: '',
    words: [0, 0],
    text: 'install the hook for libvirt',
    changes: true,
    load: async () => (await import('./hook.ts')).hookInstall,
  },
  {
    name: 'hook remove',
    args: '',
    words: [0, 0],
    text: 'remove it',
    changes: true,
    load: async () => (await import('./hook.ts')).hookRemove,
  },
  {
    name: 'hook status',
    args: '',
    words: [0, 0],
    text: 'whether libvirt finds and can run it (exit 3: no)',
    load: async () => (await import('./hook.ts')).hookStatusCommand,
  },
  {
    name: 'simulate',
    args: '[FILE|-]',
    words: [0, 1],
    text: "Nova's answers for a host described in a file: specs, aliases, pools, claims, Placement",
    load: async () => (await import('./simulate.ts')).simulateCommand,
  },
];
