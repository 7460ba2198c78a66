/** Every command: grammar and help in one place; what a command needs is loaded when it runs. */
import type { Command } from './command.ts';

const ONE_DEVICE = 'DEV';
const DEVICES = 'DEV…';
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
    name: 'vf create',
    args: 'PF',
    words: [1, 1],
    text: 'give a PF N VFs, each on VFIO, or for the host',
    changes: true,
    own: {
      count: { type: 'string', value: 'N', text: 'how many (at most its sriov_totalvfs)' },
      for: { type: 'string', value: 'vfio|netdev', text: 'what drives them: VFIO (default), or the host' },
    },
    load: async () => (await import('./vf.ts')).vfCreate,
  },
  {
    name: 'vf list',
    args: '[PF]',
    words: [0, 1],
    text: 'VFs with driver, group and owner',
    load: async () => (await import('./vf.ts')).vfList,
  },
  {
    name: 'vf remove',
    args: 'PF',
    words: [1, 1],
    text: 'take all VFs of a PF away, if none is in use',
    changes: true,
    load: async () => (await import('./vf.ts')).vfRemove,
  },
  {
    name: 'status',
    args: '',
    words: [0, 0],
    text: 'what hostdev bound, for whom, and what drifted (exit 3)',
    load: async () => (await import('./status.ts')).status,
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
];
