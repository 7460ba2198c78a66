/**
 * Every command and every global option: grammar and help in one place; what a command needs is loaded when it runs.
 */
import type { Command, GlobalOption, Option } from './command.ts';
import { DOMAIN_COMMANDS } from './domainCommands.ts';
import { DEVICE, GUEST, HALVES, PERSIST, PF, TAKE } from './optionSets.ts';

/**
 * What is global (contract 3). `every`: each command takes it; the others are taken by those that name them in `takes`.
 */
export const GLOBALS: Record<GlobalOption, Option & { every?: true }> = {
  root: { type: 'string', value: 'DIR', text: 'work on the host below DIR instead of /', every: true },
  json: { type: 'boolean', short: 'j', text: 'one JSON document on stdout, errors too', every: true },
  'dry-run': {
    type: 'boolean',
    short: 'n',
    text: "show the plan, change nothing; the exit code is the real run's",
  },
  allow: { type: 'string', value: 'GUARD', multiple: true, text: 'go on where this guard refuses; again for more' },
  config: {
    type: 'string',
    value: 'FILE|DIR',
    multiple: true,
    text: "hostdev's or Nova's configuration instead of /etc/hostdev; again for more",
  },
  inventory: {
    type: 'string',
    value: 'FILE',
    text: "the devices that 'hostdev list -j' printed on any host, instead of this one's (- is stdin)",
  },
  connect: { type: 'string', value: 'URI', text: 'the libvirt to speak to' },
  help: { type: 'boolean', short: 'h', text: 'this text; after a command, its own', every: true },
  version: { type: 'boolean', text: 'the version' },
};

export const COMMANDS: readonly Command[] = [
  {
    name: 'list',
    args: [],
    text: 'PCI devices with group, driver and type',
    takes: ['connect'],
    load: async () => (await import('./list.ts')).list,
  },
  {
    name: 'show',
    args: [DEVICE],
    text: 'everything about one device',
    takes: ['connect'],
    load: async () => (await import('./show.ts')).show,
  },
  {
    name: 'group list',
    args: [],
    text: 'IOMMU groups, and what keeps each from a guest',
    load: async () => (await import('./group.ts')).groupList,
  },
  {
    name: 'group show',
    args: [{ name: 'N|DEV' }],
    text: 'one IOMMU group',
    load: async () => (await import('./group.ts')).groupShow,
  },
  {
    name: 'group why',
    args: [DEVICE],
    text: 'why its group is as it is, and what keeps it from a guest (exit 3)',
    load: async () => (await import('./groupWhy.ts')).groupWhy,
  },
  {
    name: 'guest list',
    args: [],
    text: "libvirt's guests with their devices of this host, now and from their next start",
    takes: ['connect'],
    load: async () => (await import('./guest.ts')).guestList,
  },
  {
    name: 'guest show',
    args: [GUEST],
    text: 'one guest with its devices, their drivers, groups, NUMA distances, and who prepared them',
    takes: ['connect'],
    load: async () => (await import('./guest.ts')).guestShow,
  },
  {
    name: 'attach',
    args: [GUEST, { ...DEVICE, many: true }],
    text: 'put devices into a guest: the one that runs, and what it is at its next start',
    more: 'Binds them first as the hook would; what fails undoes all of it (exit 9: not known yet).',
    changes: 'devices',
    takes: ['dry-run', 'allow', 'connect'],
    own: { ...HALVES, ...TAKE, seconds: { type: 'string', value: 'N', text: 'time for all of it (30)' } },
    load: async () => (await import('./plug.ts')).attach,
  },
  {
    name: 'detach',
    args: [GUEST, { ...DEVICE, many: true }],
    text: 'take devices out of a guest, and give them back once it has let them go',
    more: 'A guest that does not answer keeps them: exit 9, and the next hostdev gives them back.',
    changes: 'devices',
    takes: ['dry-run', 'connect'],
    own: { ...HALVES, seconds: { type: 'string', value: 'N', text: 'time for the guest to let them go (30)' } },
    load: async () => (await import('./plug.ts')).detach,
  },
  {
    name: 'bind',
    args: [{ ...DEVICE, many: true }],
    text: "bind devices to VFIO: the kernel's variant driver, or vfio-pci",
    changes: 'devices',
    takes: ['dry-run', 'allow'],
    own: {
      driver: { type: 'string', value: 'NAME', text: "this driver instead (auto: the kernel's best)" },
      group: { type: 'string', value: 'endpoints', text: 'with all endpoints of their IOMMU groups' },
      persist: PERSIST,
    },
    load: async () => (await import('./bind.ts')).bind,
  },
  {
    name: 'unbind',
    args: [{ ...DEVICE, many: true }],
    text: 'bring devices back to where they were before hostdev',
    changes: 'devices',
    takes: ['dry-run', 'allow'],
    own: {
      'to-host': { type: 'boolean', text: 'also devices that hostdev did not bind: to their host driver' },
      persist: { ...PERSIST, text: 'at every boot too: takes the wish out, or wishes the host driver' },
    },
    load: async () => (await import('./bind.ts')).unbind,
  },
  {
    name: 'vf create',
    args: [PF],
    text: 'give a PF N VFs, each on VFIO, or for the host',
    changes: 'devices',
    takes: ['dry-run'],
    own: {
      count: { type: 'string', value: 'N', required: true, text: 'how many (at most its sriov_totalvfs)' },
      for: { type: 'string', value: 'vfio|netdev', text: 'what drives them: VFIO (default), or the host' },
      recreate: {
        type: 'boolean',
        text: 'take away those that it has in another number, with their bindings, settings and vGPU types',
      },
      persist: PERSIST,
    },
    load: async () => (await import('./vf.ts')).vfCreate,
  },
  {
    name: 'vf list',
    args: [{ ...PF, optional: true }],
    text: 'VFs with driver, group and owner',
    load: async () => (await import('./vf.ts')).vfList,
  },
  {
    name: 'vf remove',
    args: [PF],
    text: 'take all VFs of a PF away, if none is in use',
    changes: 'devices',
    takes: ['dry-run'],
    own: { persist: { ...PERSIST, text: 'at every boot too: takes the wish out' } },
    load: async () => (await import('./vf.ts')).vfRemove,
  },
  {
    name: 'vf set',
    args: [{ name: 'VF', many: true }],
    text: 'give VFs of an NVIDIA GPU a vGPU type, all of them or none',
    changes: 'devices',
    takes: ['dry-run'],
    own: {
      'vgpu-type': {
        type: 'string',
        value: 'N',
        required: true,
        text: "its number, of those in a VF's nvidia/creatable_vgpu_types; 0 takes it away",
      },
      persist: PERSIST,
    },
    load: async () => (await import('./vf.ts')).vfSet,
  },
  {
    name: 'wish list',
    args: [],
    text: 'what devices shall be at every boot, and whether they are so now',
    load: async () => (await import('./wish.ts')).wishList,
  },
  {
    name: 'wish check',
    args: [],
    text: 'whether each wish would be fulfilled at a boot now (exit 3: no)',
    load: async () => (await import('./wish.ts')).wishCheck,
  },
  {
    name: 'wish add',
    args: [{ ...DEVICE, many: true, optional: true }],
    text: 'wish what devices shall be at every boot; nothing moves now',
    changes: 'devices',
    takes: ['dry-run', 'allow'],
    own: {
      spec: { type: 'boolean', text: 'a wish for each device that the configured device_specs take now' },
      driver: { type: 'string', value: 'NAME', text: 'vfio (default), a VFIO driver, host, or none' },
      group: { type: 'string', value: 'endpoints', text: 'with all endpoints of their IOMMU groups' },
      vfs: { type: 'string', value: 'N', text: 'DEV are PFs: so many VFs each' },
      for: { type: 'string', value: 'vfio|netdev', text: 'what drives those VFs: VFIO (default), or the host' },
    },
    load: async () => (await import('./wish.ts')).wishAdd,
  },
  {
    name: 'wish remove',
    args: [{ ...DEVICE, many: true }],
    text: 'take the wishes about devices out of conf.d/90-kept.toml; nothing moves now',
    changes: 'devices',
    takes: ['dry-run'],
    load: async () => (await import('./wish.ts')).wishRemove,
  },
  {
    name: 'import',
    args: [{ name: 'KIND' }, { name: 'FILE', optional: true }],
    text: 'wishes from driverctl, modprobe.d, rc.local or nova.conf, and what to take out there',
    more: 'KIND: driverctl, modprobe.d (with /etc/modules, the initramfs and the kernel line), rc.local or nova.conf.',
    changes: 'devices',
    changesWith: 'write',
    takes: ['dry-run', 'allow'],
    own: { write: { type: 'boolean', text: 'keep the wishes in conf.d/90-kept.toml' } },
    load: async () => (await import('./import.ts')).importCommand,
  },
  {
    name: 'boot apply',
    args: [],
    text: 'what the boot runs: brings devices to what is wished for them (exit 3: one is not met)',
    changes: 'devices',
    takes: ['dry-run', 'allow'],
    own: {
      device: { type: 'string', value: 'ADDRESS', text: 'only this device, and the VFs of this PF' },
      stage: { type: 'string', value: 'apply|pf|added', text: 'which unit calls, for the report' },
      seconds: { type: 'string', value: 'N', text: 'time for all of it (25); what is not done by then is told' },
    },
    load: async () => (await import('./boot.ts')).bootApply,
  },
  {
    name: 'boot install',
    args: [],
    text: 'have the initramfs bind wished devices, before any host driver meets them',
    more: 'Writes a table of the wishes, and makes each initramfs anew that has it not (30 to 100 seconds each).',
    changes: 'devices',
    takes: ['dry-run'],
    load: async () => (await import('./boot.ts')).bootInstall,
  },
  {
    name: 'boot refresh',
    args: [],
    text: 'the same after a change of the wishes, where it was installed',
    changes: 'devices',
    takes: ['dry-run'],
    own: {
      guards: { type: 'boolean', text: 'only where the host has come to stand on a device of the table' },
    },
    load: async () => (await import('./boot.ts')).bootRefresh,
  },
  {
    name: 'boot remove',
    args: [],
    text: 'have the initramfs leave all devices alone again',
    changes: 'devices',
    takes: ['dry-run'],
    load: async () => (await import('./boot.ts')).bootRemove,
  },
  {
    name: 'boot status',
    args: [],
    text: 'each wish: met by which stage and when, or why not (exit 3)',
    load: async () => (await import('./boot.ts')).bootStatus,
  },
  {
    name: 'status',
    args: [],
    text: 'what hostdev bound, for whom, and what drifted (exit 3)',
    more:
      "Anybody may see what is bound. The journal is root's alone: without root what is unfinished is not known, which is said,\n" +
      'and the exit code is 1 where it would be 0. --fix needs root, and so does its -n: what it would mend is in the journal.',
    changes: 'devices',
    takes: ['dry-run', 'allow', 'connect'],
    changesWith: 'fix',
    own: { fix: { type: 'boolean', text: 'put right what drifted, where it is known what right is' } },
    load: async () => (await import('./status.ts')).status,
  },
  {
    name: 'log',
    args: [{ ...DEVICE, optional: true }],
    text: 'every change of a device and every lifted guard: who, what, before, after',
    more:
      'It is kept in /var/log/hostdev/record.log, which root and its group may read, and once that has 1 MiB in record.log.1\n' +
      'beside it, in place of the one before. A device that is gone is named by its address.',
    load: async () => (await import('./log.ts')).log,
  },
  {
    name: 'journal list',
    args: [],
    text: "transactions that were not finished (the journal is root's to read)",
    load: async () => (await import('./journal.ts')).journalList,
  },
  {
    name: 'journal undo',
    args: [{ name: 'ID', optional: true, many: true }],
    text: 'bring their devices back to where they were',
    changes: 'devices',
    takes: ['dry-run'],
    load: async () => (await import('./journal.ts')).journalUndo,
  },
  {
    name: 'journal resume',
    args: [{ name: 'ID', optional: true, many: true }],
    text: 'bring their devices to where they were going',
    changes: 'devices',
    takes: ['dry-run'],
    load: async () => (await import('./journal.ts')).journalResume,
  },
  {
    name: 'doctor',
    args: [],
    text: 'what on this host stands in the way of passthrough, and the line to change (exit 3: an error)',
    own: {
      'cloud-init': {
        type: 'boolean',
        text: 'print user-data that gives new machines of this kind the same wishes, kernel words and boot part',
      },
      juju: { type: 'boolean', text: "as the model's cloudinit-userdata, with what Juju takes" },
    },
    load: async () => (await import('./doctor.ts')).doctor,
  },
  ...DOMAIN_COMMANDS,
  {
    name: 'completion',
    args: [{ name: 'bash|zsh|fish|words' }, { name: 'WORD', optional: true, many: true }],
    text: "the completion script of a shell, or (after 'words --') what may stand in the place of the last word",
    load: async () => {
      const { completion } = await import('./completion.ts');
      return (i) => completion({ commands: COMMANDS, globals: GLOBALS }, i);
    },
  },
];
