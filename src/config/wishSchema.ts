/** The keys of wishes, `[[device]]` and `[[pf]]`: a part of config/schema.ts. */
import { ALLOWABLE_GUARDS } from './allowable.ts';
import type { KeyRule, Section } from './keyRule.ts';

/** What a wish is told by, over boots: `[[device]]` and `[[pf]]` alike. */
const IDENTITY = {
  address: {
    types: ['text'],
    required: true,
    otherwise: 'must be given',
    rule: 'the full address that it had when the wish was made, `0000:01:00.0`: for people. Where the identity is found at another address, that counts',
    nova: null,
  },
  path: {
    types: ['text'],
    required: true,
    otherwise: 'must be given',
    rule: 'the path of slots from the root bus, `pci0000:20/04.0/00.0`, which stays when bus numbers shift; of a VF that of its PF. `hostdev wish add` writes it',
    nova: null,
  },
  vendor_id: {
    types: ['text'],
    required: true,
    otherwise: 'must be given',
    rule: '4 hex digits; of a VF those of its PF',
    nova: null,
  },
  product_id: { types: ['text'], required: true, otherwise: 'must be given', rule: 'as vendor_id', nova: null },
  subsystem_vendor_id: { types: ['text'], otherwise: 'not compared', rule: 'as vendor_id', nova: null },
  subsystem_device_id: { types: ['text'], otherwise: 'not compared', rule: 'as vendor_id', nova: null },
  serial: {
    types: ['text'],
    otherwise: 'not compared',
    rule: 'the Device Serial Number of its config space, as lspci writes it. Another one there: the device is refused. The same one in another slot: that is the device',
    nova: null,
  },
  nvme_serial: {
    types: ['text'],
    otherwise: 'not compared',
    rule: 'the serial number of an NVMe controller; as serial, while the nvme driver shows it',
    nova: null,
  },
  mac: {
    types: ['text'],
    otherwise: 'not compared',
    rule: 'the permanent MAC address of its network interface; as serial, while its driver shows it',
    nova: null,
  },
} as const satisfies Record<string, KeyRule>;

const WISH_ALLOW: KeyRule = {
  types: ['list of texts'],
  otherwise: 'nothing',
  rule: `guards that do not hold for it at boot: of ${ALLOWABLE_GUARDS.map((g) => `\`${g}\``).join(', ')}`,
  nova: null,
};

const WISH_DRIVER =
  "`vfio` (the kernel's best VFIO driver), the name of a VFIO driver, `host` (a host driver that claims it), or `none` (no driver)";

export const WISH_SECTIONS = {
  device: {
    list: true,
    text: 'A wish: what a device shall be on at every boot. Made with `hostdev wish add` or `hostdev bind --persist`, which write conf.d/90-kept.toml. A device is told by its identity: one that does not match is left alone, whatever its address.',
    novaName: null,
    open: false,
    keys: {
      ...IDENTITY,
      vf: {
        types: ['number'],
        range: [0, 65534],
        otherwise: 'it is no VF',
        rule: 'the number of a VF below its PF (`virtfnN`); the identity is then that of the PF',
        nova: null,
      },
      driver: { types: ['text'], required: true, otherwise: 'must be given', rule: WISH_DRIVER, nova: null },
      group: {
        types: ['text'],
        values: ['endpoints'],
        otherwise: 'it alone',
        rule: '`endpoints`: with all endpoints of its IOMMU group',
        nova: null,
      },
      allow: WISH_ALLOW,
    },
  },
  pf: {
    list: true,
    text: 'A wish: the VFs that a PF shall have at every boot. Made with `hostdev wish add --vfs` or `hostdev vf create --persist`.',
    novaName: null,
    open: false,
    keys: {
      ...IDENTITY,
      vfs: {
        types: ['number'],
        range: [1, 65535],
        required: true,
        otherwise: 'must be given',
        rule: 'how many VFs, 1 to its sriov_totalvfs. A PF that has another number already is left as it is',
        nova: null,
      },
      for: {
        types: ['text'],
        values: ['vfio', 'netdev'],
        otherwise: 'vfio',
        rule: 'what drives them: `vfio`, or `netdev` for the host',
        nova: null,
      },
      range: {
        types: ['list of tables'],
        otherwise: 'all VFs are alike',
        rule: 'VFs that shall be on something else than the others: `[[pf.range]]`',
        nova: null,
      },
      allow: WISH_ALLOW,
    },
  },
  'pf.range': {
    list: true,
    text: 'Below a `[[pf]]`: VFs of it that are on something else than `for` says, or have a vGPU type.',
    novaName: null,
    open: false,
    keys: {
      vfs: {
        types: ['text'],
        required: true,
        otherwise: 'must be given',
        rule: 'numbers of VFs, counted from 0: `"3"`, `"0-3"`',
        nova: null,
      },
      driver: { types: ['text'], otherwise: 'what `for` says', rule: WISH_DRIVER, nova: null },
      vgpu_type: {
        types: ['number'],
        range: [0, 4_294_967_295],
        otherwise: 'left as it is',
        rule: "the number of NVIDIA's vGPU type (`nvidia/creatable_vgpu_types` of a VF lists those that there are), 0 for none; the VFs stay on NVIDIA's driver. What cannot be had is refused by name, and the other VFs get theirs",
        nova: null,
      },
    },
  },
} as const satisfies Record<string, Section>;
