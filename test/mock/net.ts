/** A network interface of a function in memory: its driver makes it, and it is up or down. */
import type { HostDescription } from '../scenarios/host.ts';
import type { KernelModel, Live } from './kernel.ts';

/** The files of an interface, by their names in it. */
const filesOf = (d: Live, index: number): [string, string][] => [
  ['ifindex', `${index}\n`],
  ['flags', `${d.up ? '0x1003' : '0x1002'}\n`],
  // Without a cable.
  ['operstate', 'down\n'],
  ['address', '52:54:00:00:00:51\n'],
];

/** Files and links of all interfaces: one that VFIO has, or nobody, has none. */
export function netTree(k: KernelModel): { files: [string, string][]; links: [string, string][] } {
  const own = [...k.devices.values()].filter((d) => d.net && d.driver !== null && !k.drivers.get(d.driver)?.vfio);
  const at = (d: Live): string => `sys/bus/pci/devices/${d.address}/net/${d.net}`;
  const paths = (d: Live): string[] => [at(d), `sys/class/net/${d.net}`];
  return {
    files: own.flatMap((d, n) =>
      paths(d).flatMap((path) => filesOf(d, n + 2).map(([name, text]): [string, string] => [`${path}/${name}`, text])),
    ),
    links: own.map((d) => [
      `sys/class/net/${d.net}`,
      `../../devices/pci${d.address.slice(0, 7)}/${d.address}/net/${d.net}`,
    ]),
  };
}

/** Brings an interface up or down; false where there is none of that name. */
export function setUp(k: KernelModel, name: string, up: boolean): boolean {
  const d = [...k.devices.values()].find((x) => x.net === name);
  if (d !== undefined) d.up = up;
  return d !== undefined;
}

/** A NIC without VFs whose interface is down, on a driver that makes VFs only while it is up. */
export const BNXT = '0000:51:00.0';
export const BNXT_VFS = ['0000:51:02.0', '0000:51:02.1', '0000:51:02.2', '0000:51:02.3'];
export const bnxtHost = (driver: 'bnxt_en' | 'bnx2x' = 'bnxt_en'): HostDescription => ({
  drivers: [
    {
      name: driver,
      module: driver,
      ids: ['14e4:16d7', '14e4:16dc'],
      sriov: true,
      wantsUp: driver === 'bnx2x' ? 'EINVAL' : 'silent',
    },
    { name: 'vfio-pci', module: 'vfio_pci', ids: [], vfio: true },
  ],
  devices: [
    {
      address: BNXT,
      ids: '14e4:16d7',
      group: 40,
      totalVfs: 4,
      vfIds: '14e4:16dc',
      vfGroup: 41,
      vfOffset: 16,
      vfStride: 1,
      driver,
      net: 'eth9',
    },
  ],
});
