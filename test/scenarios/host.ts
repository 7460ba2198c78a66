/**
 * Hosts as data, for the kernel in memory (test/mock/kernel.ts) and the one over FUSE (test/simhost) alike. COMMON is a
 * part of what the VM suite's machine "intel" has, at the same addresses, so that one list of scenarios runs on all
 * three.
 */
import type { ModelDevice, ModelDriver } from '../mock/kernel.ts';

export type HostDescription = {
  devices: ModelDevice[];
  drivers: ModelDriver[];
  /** Lines of modules.alias beside the generic one. */
  aliases?: string;
  files?: Record<string, string>;
  links?: Record<string, string>;
  /** Further control lines of the FUSE host, before the devices come. */
  control?: string[];
};

const RELEASE = '6.12.0-model';

/** What both kernels' proc and lib/modules hold. */
export const baseFiles = (aliases = ''): Record<string, string> => ({
  'proc/sys/kernel/osrelease': `${RELEASE}\n`,
  'proc/cmdline': 'intel_iommu=on\n',
  [`lib/modules/${RELEASE}/modules.alias`]: `alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n${aliases}`,
  'proc/self/mountinfo': '',
  'proc/swaps': 'Filename\tType\tSize\tUsed\tPriority\n',
  'proc/net/route': 'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n',
});

const word = (text: string): string =>
  text.replace(/[%\s\0=]/g, (c) => `%${c.charCodeAt(0).toString(16).padStart(2, '0')}`);

const option = (key: string, value: string | number | null | undefined): string =>
  value === undefined || value === null ? '' : ` ${key}=${word(`${value}`)}`;

const flag = (key: string, on: boolean | undefined): string => (on ? ` ${key}=1` : '');

/** The memory of a GPU, and "592:6:NVIDIA A10-6Q,…". */
const vgpuOptions = ({ vgpus }: ModelDevice): string =>
  vgpus === undefined
    ? ''
    : `${option('vgpu_room', vgpus.room)}${option('vgpus', vgpus.types.map((t) => `${t.id}:${t.size}:${t.name}`).join(','))}`;

function deviceLine(d: ModelDevice): string {
  const attributes = Object.entries(d.attributes ?? {})
    .filter(([name]) => name !== 'reset_method')
    .map(([name, text]) => option(`attr.${name}`, text));
  return `device ${d.address} ${d.ids}${option('class', d.class)}${option('subsystem', d.subsystem)}${option('parent', d.parent)}${option('group', d.group)}${option('numa', d.numa)}${option('physfn', d.physfn)}${option('totalvfs', d.totalVfs)}${option('vfids', d.vfIds)}${option('vfgroup', d.vfGroup)}${option('vfoffset', d.vfOffset)}${option('vfstride', d.vfStride)}${option('net', d.net)}${vgpuOptions(d)}${option('driver', d.driver)}${option('override', d.override)}${attributes.join('')}${(d.options ?? []).map((o) => ` ${o}`).join('')}`;
}

function driverLine(r: ModelDriver): string {
  const managed = r.name === 'pcieport' || r.name === 'pci-stub';
  return `driver ${word(r.name)}${option('module', r.module)}${r.ids.length > 0 ? option('ids', r.ids.join(',')) : ''}${flag('vfio', r.vfio)}${flag('sriov', r.sriov)}${flag('vgpu', r.vgpu)}${option('wants_up', r.wantsUp)}${flag('managed_dma', managed)}${option('probe_errno', r.probeErrno)}${option('defer', r.defer)}${(r.options ?? []).map((o) => ` ${o}`).join('')}`;
}

/**
 * The control lines that make a FUSE host of a description. A driver that is not loaded is not there: below another
 * root nobody loads it.
 */
export function linesOf(h: HostDescription): string[] {
  const files = { ...baseFiles(h.aliases), ...h.files };
  return [
    ...Object.entries(files).map(([path, text]) => `file ${word(path)} ${word(text)}`),
    ...h.drivers.filter((r) => r.loaded !== false).map(driverLine),
    ...(h.control ?? []),
    ...h.devices.map(deviceLine),
    ...Object.entries(h.links ?? {}).map(([path, target]) => `link ${word(path)} ${word(target)}`),
  ];
}

const DRIVERS: ModelDriver[] = [
  { name: 'igb', module: 'igb', ids: ['8086:10c9'], sriov: true },
  { name: 'igbvf', module: 'igbvf', ids: ['8086:10ca'] },
  { name: 'e1000e', module: 'e1000e', ids: ['8086:10d3'] },
  { name: 'e1000', module: 'e1000', ids: ['8086:100e'] },
  { name: 'shpchp', module: 'shpchp', ids: ['1b36:000e'] },
  { name: 'vfio-pci', module: 'vfio_pci', ids: [], vfio: true },
  { name: 'tb_igbvf_vfio_pci', module: 'tb_igbvf_vfio_pci', ids: [], vfio: true },
];

/** The addresses that scenarios use. */
export const DEV = {
  PF: '0000:21:00.0',
  VF0: '0000:21:10.0',
  VF1: '0000:21:10.2',
  VF2: '0000:21:10.4',
  VF3: '0000:21:10.6',
  NIC: '0000:23:00.0',
  EDU: '0000:24:00.0',
  BRIDGE: '0000:25:00.0',
  EDU2: '0000:26:01.0',
  NIC2: '0000:26:02.0',
} as const;

export const COMMON: HostDescription = {
  drivers: DRIVERS,
  aliases: 'alias vfio_pci:v00008086d000010CAsv*sd*bc*sc*i* tb_igbvf_vfio_pci\n',
  devices: [
    {
      address: DEV.PF,
      ids: '8086:10c9',
      group: 10,
      numa: 0,
      totalVfs: 7,
      vfIds: '8086:10ca',
      vfGroup: 40,
      driver: 'igb',
    },
    {
      address: DEV.NIC,
      ids: '8086:10d3',
      group: 12,
      numa: 0,
      driver: 'e1000e',
      attributes: { reset_method: 'flr bus\n' },
    },
    { address: DEV.EDU, ids: '1234:11e8', class: '00ff00', group: 13, numa: 0 },
    { address: DEV.BRIDGE, ids: '1b36:000e', class: '060400', group: 14, numa: 0, driver: 'shpchp' },
    { address: DEV.EDU2, ids: '1234:11e8', class: '00ff00', parent: DEV.BRIDGE, group: 14, numa: 0 },
    { address: DEV.NIC2, ids: '8086:100e', parent: DEV.BRIDGE, group: 14, numa: 0, driver: 'e1000' },
  ],
};
