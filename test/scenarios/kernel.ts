/**
 * What the kernel itself answers, errno by errno: the ground that hostdev stands on. Devices are those of COMMON
 * (host.ts), as they are before every scenario.
 */
import { DEV } from './host.ts';
import type { Scenario, Step } from './step.ts';

const { PF, VF0, VF1, NIC, EDU, EDU2, BRIDGE, NIC2 } = DEV;

const dev = (address: string, file: string): string => `devices/${address}/${file}`;
const override = (address: string, value: string, errno?: string): Step => ({
  write: dev(address, 'driver_override'),
  value,
  ...(errno ? { errno } : {}),
});
const reads = (address: string, file: string, is: string): Step => ({ read: dev(address, file), is });
const driver = (address: string, is: string | null): Step => ({ link: dev(address, 'driver'), is });
const bind = (name: string, value: string, errno?: string): Step => ({
  write: `drivers/${name}/bind`,
  value,
  ...(errno ? { errno } : {}),
});
const unbind = (name: string, value: string, errno?: string): Step => ({
  write: `drivers/${name}/unbind`,
  value,
  ...(errno ? { errno } : {}),
});
const probe = (value: string, errno?: string): Step => ({ write: 'drivers_probe', value, ...(errno ? { errno } : {}) });
const numvfs = (value: string, errno?: string): Step => ({
  write: dev(PF, 'sriov_numvfs'),
  value,
  ...(errno ? { errno } : {}),
});

type Undo = Scenario['cleanup'];
/** Whatever it is on: off it, no override, on its own driver. */
const home = (address: string, off: string[], to: string | null): Undo => [
  ...off.map((d) => ({ write: `drivers/${d}/unbind`, value: address })),
  { write: dev(address, 'driver_override'), value: '\n' },
  ...(to === null ? [] : [{ write: `drivers/${to}/bind`, value: address }]),
];
const noVfs: Undo = [
  { write: dev(PF, 'sriov_numvfs'), value: '0' },
  { write: dev(PF, 'sriov_drivers_autoprobe'), value: '1' },
];
const ABSENT = '0000:7f:00.0';

export const KERNEL_SCENARIOS: Scenario[] = [
  {
    name: 'driver_override: unset, set, with and without a line end, cut at the first, cleared, too long',
    steps: [
      reads(EDU, 'driver_override', '(null)\n'),
      override(EDU, 'vfio-pci\n'),
      reads(EDU, 'driver_override', 'vfio-pci\n'),
      override(EDU, 'none'),
      reads(EDU, 'driver_override', 'none\n'),
      override(EDU, 'first\nsecond\n'),
      reads(EDU, 'driver_override', 'first\n'),
      override(EDU, 'x'.repeat(4095), 'EINVAL'),
      reads(EDU, 'driver_override', 'first\n'),
      override(EDU, '\n'),
      reads(EDU, 'driver_override', '(null)\n'),
      driver(EDU, null),
    ],
    cleanup: home(EDU, [], null),
  },
  {
    name: 'bind: unknown device, no match, bound already, no such driver',
    steps: [
      bind('e1000e', ABSENT, 'ENODEV'),
      bind('e1000e', EDU, 'ENODEV'),
      bind('e1000e', NIC, 'EBUSY'),
      bind('no_such_driver', NIC, 'ENOENT'),
      bind('vfio-pci', EDU, 'ENODEV'),
      driver(NIC, 'e1000e'),
    ],
    cleanup: [],
  },
  {
    name: 'unbind: unknown device, another driver, driverless; with a line end it works, and bind brings it back',
    steps: [
      unbind('e1000e', ABSENT, 'ENODEV'),
      unbind('e1000', NIC, 'ENODEV'),
      unbind('vfio-pci', EDU, 'ENODEV'),
      unbind('e1000e', `${NIC}\n`),
      driver(NIC, null),
      unbind('e1000e', NIC, 'ENODEV'),
      bind('e1000e', `${NIC}\n`),
      driver(NIC, 'e1000e'),
    ],
    cleanup: home(NIC, [], 'e1000e'),
  },
  {
    name: 'drivers_probe: unknown device fails, bound and unwanted ones succeed and nothing happens',
    steps: [
      probe(ABSENT, 'ENODEV'),
      probe(NIC),
      driver(NIC, 'e1000e'),
      probe(EDU),
      driver(EDU, null),
      unbind('e1000e', NIC),
      probe(`${NIC}\n`),
      driver(NIC, 'e1000e'),
    ],
    cleanup: home(NIC, [], 'e1000e'),
  },
  {
    name: 'a silent probe: an override that no driver has, and the probe file still says yes',
    steps: [
      override(NIC, 'no_such_driver\n'),
      driver(NIC, 'e1000e'),
      unbind('e1000e', NIC),
      probe(NIC),
      driver(NIC, null),
      bind('e1000e', NIC, 'ENODEV'),
      override(NIC, '\n'),
      driver(NIC, null),
      probe(NIC),
      driver(NIC, 'e1000e'),
    ],
    cleanup: home(NIC, [], 'e1000e'),
  },
  {
    name: 'vfio-pci takes a device by override only, shows vfio-dev, and keeps it when the override goes',
    steps: [
      bind('vfio-pci', EDU, 'ENODEV'),
      probe(EDU),
      driver(EDU, null),
      override(EDU, 'vfio-pci\n'),
      { exists: dev(EDU, 'vfio-dev'), is: false },
      probe(EDU),
      driver(EDU, 'vfio-pci'),
      { exists: dev(EDU, 'vfio-dev'), is: true },
      bind('vfio-pci', EDU, 'EBUSY'),
      override(EDU, '\n'),
      driver(EDU, 'vfio-pci'),
      unbind('vfio-pci', EDU),
      driver(EDU, null),
      { exists: dev(EDU, 'vfio-dev'), is: false },
    ],
    cleanup: home(EDU, ['vfio-pci'], null),
  },
  {
    name: 'an override shuts the host driver out',
    steps: [
      override(NIC, 'vfio-pci'),
      unbind('e1000e', NIC),
      bind('e1000e', NIC, 'ENODEV'),
      bind('vfio-pci', NIC),
      driver(NIC, 'vfio-pci'),
      unbind('vfio-pci', NIC),
      override(NIC, '\n'),
      bind('e1000e', NIC),
      driver(NIC, 'e1000e'),
    ],
    cleanup: home(NIC, ['vfio-pci'], 'e1000e'),
  },
  {
    name: 'a bridge: vfio-pci answers EINVAL, and the probe file does not say so',
    steps: [
      unbind('shpchp', BRIDGE),
      override(BRIDGE, 'vfio-pci'),
      bind('vfio-pci', BRIDGE, 'EINVAL'),
      driver(BRIDGE, null),
      probe(BRIDGE),
      driver(BRIDGE, null),
    ],
    cleanup: home(BRIDGE, ['vfio-pci'], 'shpchp'),
  },
  {
    name: 'sriov_numvfs: no number, too many, some, the same, others, none',
    steps: [
      reads(PF, 'sriov_numvfs', '0\n'),
      reads(PF, 'sriov_totalvfs', '7\n'),
      numvfs('many', 'EINVAL'),
      numvfs('-1', 'EINVAL'),
      numvfs('99999', 'EINVAL'),
      numvfs('8', 'ERANGE'),
      numvfs('2'),
      reads(PF, 'sriov_numvfs', '2\n'),
      { link: dev(PF, 'virtfn0'), is: VF0 },
      { link: dev(PF, 'virtfn1'), is: VF1 },
      { link: dev(PF, 'virtfn2'), is: null },
      { link: dev(VF0, 'physfn'), is: PF },
      driver(VF1, 'igbvf'),
      numvfs('2'),
      numvfs('3', 'EBUSY'),
      reads(PF, 'sriov_numvfs', '2\n'),
      numvfs('0'),
      { exists: dev(VF0, 'modalias'), is: false },
      { write: dev(NIC, 'sriov_numvfs'), value: '1', errno: 'ENOENT' },
    ],
    cleanup: noVfs,
  },
  {
    name: 'sriov_numvfs of a PF without its driver is ENOENT; the driver takes its VFs with it',
    steps: [
      numvfs('2'),
      unbind('igb', PF),
      driver(PF, null),
      reads(PF, 'sriov_numvfs', '0\n'),
      { exists: dev(VF0, 'modalias'), is: false },
      numvfs('2', 'ENOENT'),
      numvfs('0'),
      bind('igb', PF),
      driver(PF, 'igb'),
    ],
    cleanup: [...home(PF, [], 'igb'), ...noVfs],
  },
  {
    name: 'sriov_drivers_autoprobe 0: fresh VFs have no driver, probe and bind need an override',
    steps: [
      { write: dev(PF, 'sriov_drivers_autoprobe'), value: 'x', errno: 'EINVAL' },
      { write: dev(PF, 'sriov_drivers_autoprobe'), value: '0' },
      reads(PF, 'sriov_drivers_autoprobe', '0\n'),
      numvfs('1'),
      driver(VF0, null),
      probe(VF0),
      driver(VF0, null),
      bind('igbvf', VF0, 'ENODEV'),
      override(VF0, 'igbvf'),
      bind('igbvf', VF0),
      driver(VF0, 'igbvf'),
      unbind('igbvf', VF0),
      override(VF0, 'tb_igbvf_vfio_pci'),
      probe(VF0),
      driver(VF0, 'tb_igbvf_vfio_pci'),
    ],
    cleanup: noVfs,
  },
  {
    name: 'new_id binds every unbound device of these ids at once; remove_id leaves them bound',
    steps: [
      { write: 'drivers/vfio-pci/new_id', value: '1234', errno: 'EINVAL' },
      { write: 'drivers/vfio-pci/remove_id', value: '1234 11e8', errno: 'ENODEV' },
      { write: 'drivers/vfio-pci/new_id', value: '1234 11e8' },
      driver(EDU, 'vfio-pci'),
      driver(EDU2, 'vfio-pci'),
      driver(NIC2, 'e1000'),
      { write: 'drivers/vfio-pci/new_id', value: '1234 11e8', errno: 'EEXIST' },
      { write: 'drivers/vfio-pci/remove_id', value: '1234 11e8' },
      driver(EDU, 'vfio-pci'),
      { write: 'drivers/e1000e/new_id', value: '8086 10d3', errno: 'EEXIST' },
    ],
    cleanup: [
      { write: 'drivers/vfio-pci/remove_id', value: '1234 11e8' },
      // The last is an edu too, on the VM's switch.
      ...[EDU, EDU2, '0000:96:00.0'].flatMap((a) => home(a, ['vfio-pci'], null)),
    ],
  },
  {
    name: 'reset: 1 and nothing else; without a method left ENOTTY; write-only and read-only files',
    steps: [
      { write: dev(NIC, 'reset'), value: '1' },
      { write: dev(NIC, 'reset'), value: '2', errno: 'EINVAL' },
      { write: dev(NIC, 'reset'), value: 'x', errno: 'EINVAL' },
      { read: dev(NIC, 'reset'), errno: 'EACCES' },
      { write: dev(NIC, 'reset_method'), value: 'nonsense', errno: 'EINVAL' },
      { write: dev(NIC, 'reset_method'), value: '\n' },
      { write: dev(NIC, 'reset'), value: '1', errno: 'ENOTTY' },
      { write: dev(NIC, 'reset_method'), value: 'default' },
      { write: dev(NIC, 'reset'), value: '1' },
      { write: dev(NIC, 'modalias'), value: 'x', errno: 'EACCES' },
      { write: dev(NIC, 'no_such_attribute'), value: 'x', errno: 'ENOENT' },
      { read: 'drivers_probe', errno: 'EACCES' },
      driver(NIC, 'e1000e'),
    ],
    cleanup: [{ write: dev(NIC, 'reset_method'), value: 'default' }],
  },
  {
    name: 'remove and rescan: another device of the same name, its override gone, its driver looked for',
    steps: [
      override(NIC, 'e1000e'),
      { write: dev(NIC, 'remove'), value: 'x', errno: 'EINVAL' },
      { write: dev(NIC, 'remove'), value: '0' },
      driver(NIC, 'e1000e'),
      { write: dev(NIC, 'remove'), value: '1' },
      { exists: `devices/${NIC}`, is: false },
      { read: dev(NIC, 'driver_override'), errno: 'ENOENT' },
      bind('e1000e', NIC, 'ENODEV'),
      { write: 'rescan', value: '1' },
      reads(NIC, 'driver_override', '(null)\n'),
      driver(NIC, 'e1000e'),
    ],
    cleanup: [{ write: 'rescan', value: '1' }, ...home(NIC, [], 'e1000e')],
  },
  {
    name: "a group's type: no such word, and not while a host driver is bound",
    steps: [
      { write: dev(NIC, 'iommu_group/type'), value: 'nonsense', errno: 'EINVAL' },
      { write: dev(NIC, 'iommu_group/type'), value: 'identity', errno: 'EPERM' },
    ],
    cleanup: [],
  },
];
