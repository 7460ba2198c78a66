/** What hostdev makes of it: its own operations, with what the kernel shows afterwards. */
import { DEV } from './host.ts';
import type { Scenario, Step } from './step.ts';

const { PF, VF0, VF1, NIC, EDU, BRIDGE, NIC2, EDU2 } = DEV;

const dev = (address: string, file: string): string => `devices/${address}/${file}`;
const driver = (address: string, is: string | null): Step => ({ link: dev(address, 'driver'), is });
const override = (address: string, is: string): Step => ({ read: dev(address, 'driver_override'), is });
const UNSET = '(null)\n';

const home = (address: string, to: string | null): Scenario['cleanup'] => [
  { write: 'drivers/vfio-pci/unbind', value: address },
  { write: dev(address, 'driver_override'), value: '\n' },
  ...(to === null ? [] : [{ write: `drivers/${to}/bind`, value: address }]),
];
const noVfs: Scenario['cleanup'] = [
  { write: dev(PF, 'sriov_numvfs'), value: '0' },
  { write: dev(PF, 'sriov_drivers_autoprobe'), value: '1' },
];

export const HOSTDEV_SCENARIOS: Scenario[] = [
  {
    name: 'bind and unbind: on vfio-pci and back, the second time no change',
    steps: [
      { hostdev: ['bind', NIC], exit: 0, changed: true },
      driver(NIC, 'vfio-pci'),
      { exists: dev(NIC, 'vfio-dev'), is: true },
      { hostdev: ['bind', NIC], exit: 0, changed: false },
      { hostdev: ['unbind', NIC], exit: 0, changed: true },
      driver(NIC, 'e1000e'),
      override(NIC, UNSET),
      { hostdev: ['unbind', NIC], exit: 4, code: 'HOSTDEV_NOT_OURS' },
    ],
    cleanup: home(NIC, 'e1000e'),
  },
  {
    name: 'an override that was there before is there again',
    steps: [
      { write: dev(NIC, 'driver_override'), value: 'e1000e\n' },
      { hostdev: ['bind', NIC], exit: 0 },
      override(NIC, 'vfio-pci\n'),
      { hostdev: ['unbind', NIC], exit: 0 },
      driver(NIC, 'e1000e'),
      override(NIC, 'e1000e\n'),
    ],
    cleanup: home(NIC, 'e1000e'),
  },
  {
    name: 'a driverless device is driverless again',
    steps: [
      { hostdev: ['bind', EDU], exit: 0 },
      driver(EDU, 'vfio-pci'),
      { hostdev: ['unbind', EDU], exit: 0 },
      driver(EDU, null),
      override(EDU, UNSET),
    ],
    cleanup: home(EDU, null),
  },
  {
    name: "VFs go to the kernel's variant driver, several at once, and back",
    steps: [
      { write: dev(PF, 'sriov_numvfs'), value: '2' },
      driver(VF1, 'igbvf'),
      { hostdev: ['bind', VF0, VF1], exit: 0 },
      driver(VF0, 'tb_igbvf_vfio_pci'),
      driver(VF1, 'tb_igbvf_vfio_pci'),
      { hostdev: ['unbind', VF0, VF1], exit: 0 },
      driver(VF0, 'igbvf'),
      driver(VF1, 'igbvf'),
      override(VF1, UNSET),
    ],
    cleanup: noVfs,
  },
  {
    name: 'with autoprobe off a driverless VF is bound and driverless again',
    steps: [
      { write: dev(PF, 'sriov_drivers_autoprobe'), value: '0' },
      { write: dev(PF, 'sriov_numvfs'), value: '1' },
      driver(VF0, null),
      { hostdev: ['bind', VF0], exit: 0 },
      driver(VF0, 'tb_igbvf_vfio_pci'),
      { hostdev: ['unbind', VF0], exit: 0 },
      driver(VF0, null),
      override(VF0, UNSET),
    ],
    cleanup: noVfs,
  },
  {
    name: 'refused by name, and nothing is touched: a bridge, a PF with VFs; absent: exit 4',
    steps: [
      { write: dev(PF, 'sriov_numvfs'), value: '1' },
      { hostdev: ['bind', BRIDGE], exit: 5, code: 'HOSTDEV_GUARD' },
      { hostdev: ['bind', PF], exit: 5, code: 'HOSTDEV_GUARD' },
      { hostdev: ['bind', '0000:7f:00.0'], exit: 4, code: 'HOSTDEV_DEVICE_ABSENT' },
      driver(BRIDGE, 'shpchp'),
      driver(PF, 'igb'),
      override(PF, UNSET),
    ],
    cleanup: noVfs,
  },
  {
    name: 'one of several is refused: none is bound',
    steps: [
      { hostdev: ['bind', NIC2, BRIDGE], exit: 5 },
      driver(NIC2, 'e1000'),
      override(NIC2, UNSET),
      { hostdev: ['bind', NIC2, EDU2], exit: 0 },
      driver(NIC2, 'vfio-pci'),
      driver(EDU2, 'vfio-pci'),
      { hostdev: ['unbind', NIC2, EDU2], exit: 0 },
      driver(NIC2, 'e1000'),
      driver(EDU2, null),
    ],
    cleanup: [...home(NIC2, 'e1000'), ...home(EDU2, null)],
  },
];
