/** Domains around what `domain check` judges: sound ones made by chance, then changed in a place or two. */
import { type Chance, chance, clone, el, type Node, nodesOf } from './tree.ts';

/** Values by attribute, sound and not; beside them any attribute may get one of ODD. */
const VALUES: Record<string, readonly string[]> = {
  model: ['intel', 'virtio', 'smmuv3', 'amd', 'vtd', 'pcie-root', 'pcie-root-port', 'pci-bridge', 'pcie-expander-bus'],
  intremap: ['on', 'off'],
  caching_mode: ['on', 'off'],
  eim: ['on', 'off'],
  iotlb: ['on', 'off'],
  aw_bits: ['0', '31', '32', '39', '48', '64', '65', '255', '256', '0x30', '030', '+48', ' 48', '48 '],
  dma_translation: ['on', 'off'],
  xtsup: ['on', 'off'],
  passthrough: ['on', 'off'],
  pciBus: ['0', '1', '2', '4294967295', '4294967296'],
  accel: ['on', 'off'],
  ats: ['on', 'off'],
  ssidsize: ['0', '20', '21', '-1'],
  domain: ['0', '0x0000', '0xffff', '0x10000', '65535', '0xffffffff', '0x100000000', '00', '0xFFFF'],
  bus: ['0', '0x41', '65', '0xff', '255', '256', '0x100', '010', '08', '0X1f', '377', '0377', '0400', 'ff'],
  slot: ['0', '0x1f', '31', '32', '0x20', '1f', '1a', 'f', '07', '037', '040', '0x00', '0x001', '08', '09'],
  function: ['0', '0x7', '7', '8', '0x8', '00', '07', '010', '0x00'],
  multifunction: ['on', 'off'],
  managed: ['yes', 'no'],
  mode: ['subsystem', 'capabilities', 'host-passthrough', 'host-model', 'custom', 'host'],
  type: [
    'pci',
    'usb',
    'hostdev',
    'nvme',
    'drive',
    'unassigned',
    'transient',
    'persistent',
    'none',
    'scsi',
    'mdev',
    '802.1Qbh',
    '802.1Qbg',
    'kvm',
    'qemu',
    'test',
  ],
  name: ['vfio', 'kvm', 'xen', 'qemu', 'vhost', 'mlx5_vfio_pci', 'ua-x', 'x y'],
  order: ['1', '2', '01', '0', '-1', '4294967295', '4294967296', '99999999999'],
  loadparm: ['LINUX', 'two words', '123456789', ''],
  index: ['0', '1', '2', '16383', '16384', '4294967295', '4294967296', '01', '+1'],
  nodeset: ['0', '1-2', '1,2', 'x'],
  namespace: ['1', '0', '4294967295', '4294967296', '0x1', '01', '-1'],
  id: ['0', '42', '4095', '4096', '0x10', '+1', '007', 'a'],
  trunk: ['yes', 'no'],
  nativeMode: ['tagged', 'untagged', 'x'],
  bar: ['on', 'off', 'yes'],
  enabled: ['yes', 'no', 'on'],
  file: ['/a/b.rom', 'a.rom', '', '/', 'C:\\x'],
  address: [
    '52:54:00:11:22:33',
    '52:54:00:AA:bb:33',
    '01:00:00:00:00:01',
    '525400112233',
    '00:00:00:00:00:00',
    '52:54:0:1:2:3',
    'ff:ff:ff:ff:ff:ff',
    '52-54-00-11-22-33',
  ],
  driver: ['qemu', 'kvm', 'x'],
  startupPolicy: ['mandatory', 'requisite', 'optional', 'x'],
  writeFiltering: ['yes', 'no', 'on'],
  persistent: ['ua-net', 'x', 'a b'],
  display: ['on', 'off'],
  ramfb: ['on', 'off'],
  iommufd: ['yes', 'no'],
  machine: ['q35', 'pc', 'virt', 'pc-q35-7.2', 'pc-i440fx-6.0', 'virt-7.2', 'microvm', 'x y', 'none'],
  arch: ['x86_64', 'aarch64', 'i686', 'armv7l', 'ppc64', 'riscv64', 's390x', 'x'],
  profileid: ['finance', 'a'.repeat(40)],
  placement: ['static', 'auto', 'x'],
  current: ['1', '2', '0', '300'],
  unit: ['KiB', 'MiB', 'k', 'GiB', 'x', 'bytes', 'B'],
  size: ['4', '64', '0'],
  state: ['on', 'off', 'up', 'down'],
  check: ['yes', 'no'],
  device: ['disk', 'cdrom', 'lun', 'floppy'],
  dev: ['vda', 'sda', 'vdb', 'hd', 'network'],
  trustGuestRxFilters: ['yes', 'no'],
  queues: ['1', '4', '0', 'x'],
  iommu: ['on', 'off'],
};
const ODD = [
  '',
  ' ',
  'on',
  'yes',
  '1',
  '0',
  '-1',
  '+1',
  '0x1',
  '1 ',
  ' 1',
  '\t1',
  '1\n',
  'ON',
  ' on ',
  'yes ',
  'é',
  '18446744073709551616',
];
const STRANGE = [
  'foo',
  'driver',
  'address',
  'source',
  'alias',
  'boot',
  'rom',
  'acpi',
  'iommu',
  'mac',
  'vlan',
  'teaming',
  'virtualport',
  'model',
  'target',
  'readonly',
  'description',
  'granule',
  'zpci',
  'shareable',
  'link',
  'mtu',
  'bandwidth',
  'ioapic',
  'x:y',
];
const ATTRIBUTES = Object.keys(VALUES);

const value = (c: Chance, name: string): string => (c.next() < 0.8 ? c.pick(VALUES[name] ?? ODD) : c.pick(ODD));

const number = (c: Chance, most: number): string => {
  const n = Math.floor(c.next() * (most + 1));
  return c.pick([String(n), `0x${n.toString(16)}`, `0x${n.toString(16).padStart(2, '0')}`]);
};

function pciAddress(c: Chance, type: boolean): Node {
  return el('address', {
    ...(type ? { type: 'pci' } : {}),
    ...(c.next() < 0.8 ? { domain: c.pick(['0x0000', '0', '0x0001', '65535']) } : {}),
    bus: number(c, 255),
    slot: c.pick(['0x00', '0x1f', '0', '31', '0x10']),
    function: c.pick(['0x0', '7', '0x7', '1']),
  });
}

const some = (c: Chance, nodes: (Node | '')[]): Node[] =>
  shuffled(
    c,
    nodes.filter((n): n is Node => n !== ''),
  );

function shuffled<T>(c: Chance, list: T[]): T[] {
  for (let i = list.length - 1; i > 0; i -= 1) {
    const j = Math.floor(c.next() * (i + 1));
    [list[i], list[j]] = [list[j] as T, list[i] as T];
  }
  return list;
}

const TAKES: Record<string, readonly string[]> = {
  intel: ['intremap', 'caching_mode', 'eim', 'iotlb', 'aw_bits', 'dma_translation'],
  amd: ['intremap', 'iotlb', 'xtsup', 'passthrough'],
  virtio: ['aw_bits', 'granule'],
  smmuv3: ['pciBus', 'accel', 'ats', 'ssidsize'],
};

/** What 9.0.0 does not have: seldom, because it hides all else. */
const LATE = new Set(['dma_translation', 'xtsup', 'passthrough', 'pciBus', 'accel', 'ats', 'ssidsize']);
const SOUND: Record<string, readonly string[]> = {
  aw_bits: ['39', '48', '48', '64'],
  pciBus: ['0', '1'],
  ssidsize: ['0', '20'],
};

function iommu(c: Chance, arm: boolean): Node {
  const model = c.pick(
    arm
      ? ['smmuv3', 'smmuv3', 'virtio']
      : ['intel', 'intel', 'intel', 'intel', 'intel', 'virtio', 'virtio', 'virtio', 'amd', 'smmuv3'],
  );
  const driver: Record<string, string> = {};
  for (let n = Math.floor(c.next() * 4); n > 0; n -= 1) {
    const name = c.next() < 0.9 ? c.pick(TAKES[model] ?? []) : c.pick(Object.values(TAKES).flat());
    if (name !== 'granule' && (!LATE.has(name) || c.next() < 0.3)) driver[name] = c.pick(SOUND[name] ?? ['on', 'off']);
  }
  if (driver.eim === 'on' && c.next() < 0.85) driver.intremap = 'on';
  return el(
    'iommu',
    { model },
    some(c, [
      Object.keys(driver).length > 0 || c.next() < 0.1 ? el('driver', driver) : '',
      c.maybe(0.08, () => el('alias', { name: c.pick(['ua-iommu', 'iommu0', 'x']) })),
      c.maybe(0.06, () => el('acpi', { index: c.pick(['1', '7', '0']) })),
      c.maybe(0.12, () =>
        el('address', { type: 'pci', domain: '0', bus: c.pick(['0', '0x00', '1']), slot: '0x1e', function: '0' }),
      ),
    ]),
  );
}

const rom = (c: Chance): Node =>
  el('rom', c.pick([{ enabled: 'no' }, { bar: 'on' }, { bar: 'off', file: '/a.rom' }, { enabled: 'yes', bar: 'on' }]));

const guest = (c: Chance): Node =>
  c.pick([
    el('address', { type: 'pci' }),
    el('address', { type: 'unassigned' }),
    el('address', {
      type: 'pci',
      domain: c.pick(['0', '0', '0', '1']),
      bus: c.pick(['0', '1', '1', '2', '3']),
      slot: c.pick(['0', '0', '1', '4', '0x1f']),
      function: c.pick(['0', '0', '1']),
    }),
    el('address', { type: 'pci', domain: '0', bus: '1', slot: '0', function: '0' }),
    el('address', { type: 'pci', domain: '0', bus: '0', slot: '5', function: '0', multifunction: 'on' }),
    el('address', { type: 'usb', bus: '0', port: '1' }),
    el('address', { type: 'drive', controller: '0', bus: '0', target: '0', unit: '0' }),
    el('address', { type: 'ccw' }),
  ]);

/** What every device may have. */
const common = (c: Chance, n: number): (Node | '')[] => [
  c.maybe(0.1, () => el('boot', { order: String(n + 1) })),
  c.maybe(0.1, () => rom(c)),
  c.maybe(0.1, () => el('alias', { name: `ua-d${n}` })),
  c.maybe(0.05, () => el('acpi', { index: String(n + 1) })),
  c.maybe(0.1, () => guest(c)),
  c.maybe(0.06, () => el('teaming', { type: 'transient', persistent: 'ua-net' })),
];

const vfioDriver = (c: Chance): Node =>
  c.pick([
    el('driver', { name: 'vfio' }),
    el('driver', { name: 'vfio' }),
    el('driver', { name: 'kvm' }),
    el('driver'),
    el('driver', { model: 'mlx5_vfio_pci' }),
  ]);

function hostdev(c: Chance, n: number): Node {
  return el(
    'hostdev',
    { mode: 'subsystem', type: 'pci', ...(c.next() < 0.7 ? { managed: c.pick(['yes', 'no']) } : {}) },
    some(c, [
      el('source', {}, [pciAddress(c, false)]),
      c.maybe(0.25, () => vfioDriver(c)),
      ...common(c, n),
      c.maybe(0.02, () => el('readonly')),
      c.maybe(0.02, () => el('shareable')),
    ]),
  );
}

function hostdevInterface(c: Chance, n: number): Node {
  return el(
    'interface',
    { type: 'hostdev', ...(c.next() < 0.7 ? { managed: c.pick(['yes', 'no']) } : {}) },
    some(c, [
      el('source', {}, [pciAddress(c, true)]),
      c.maybe(0.5, () => el('mac', { address: `52:54:00:11:22:3${n % 10}` })),
      c.maybe(0.2, () =>
        el(
          'vlan',
          c.pick([{}, { trunk: 'yes' }]),
          c.pick([[el('tag', { id: '42' })], [el('tag', { id: '1' }), el('tag', { id: '2', nativeMode: 'tagged' })]]),
        ),
      ),
      c.maybe(0.2, () =>
        c.pick([
          el('virtualport', { type: '802.1Qbh' }, [el('parameters', { profileid: 'finance' })]),
          el('virtualport', { type: '802.1Qbg' }, [
            el('parameters', {
              managerid: '11',
              typeid: '1193047',
              typeidversion: '2',
              instanceid: '09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f',
            }),
          ]),
          el('virtualport', { type: 'openvswitch' }),
          el('virtualport', {}, [el('parameters', { profileid: 'x' })]),
        ]),
      ),
      c.maybe(0.15, () => vfioDriver(c)),
      c.maybe(0.06, () => el('model', { type: 'virtio' })),
      c.maybe(0.05, () => el('link', { state: 'up' })),
      c.maybe(0.05, () => el('target', { dev: 'tap0' })),
      c.maybe(0.04, () => el('mtu', { size: '1500' })),
      c.maybe(0.04, () => el('bandwidth', {}, [el('inbound', { average: '1000' })])),
      c.maybe(0.03, () => el('port', { isolated: 'yes' })),
      ...common(c, n),
    ]),
  );
}

function nvmeDisk(c: Chance, n: number): Node {
  return el(
    'disk',
    { type: 'nvme', device: 'disk' },
    some(c, [
      el('driver', { name: 'qemu', type: 'raw' }),
      el(
        'source',
        { type: 'pci', ...(c.next() < 0.7 ? { managed: c.pick(['yes', 'no']) } : {}), namespace: c.pick(['1', '2']) },
        [pciAddress(c, false)],
      ),
      el('target', { dev: `vd${'abcdefgh'[n % 8]}`, bus: 'virtio' }),
      c.maybe(0.1, () => el('boot', { order: String(n + 1) })),
      c.maybe(0.1, () => el('alias', { name: `ua-d${n}` })),
      c.maybe(0.04, () => el('readonly')),
      c.maybe(0.04, () => el('serial', {}, ['S1'])),
    ]),
  );
}

const fileDisk = (c: Chance, n: number): Node =>
  el(
    'disk',
    { type: 'file', device: 'disk' },
    some(c, [
      el('source', { file: '/a.img' }),
      el('target', { dev: `vd${'abcdefgh'[n % 8]}`, bus: 'virtio' }),
      c.maybe(0.3, () => el('boot', { order: String(n + 1) })),
    ]),
  );

const bridge = (c: Chance, n: number): Node =>
  el(
    'interface',
    { type: 'bridge' },
    some(c, [
      el('source', { bridge: 'br0' }),
      el('model', { type: 'virtio' }),
      c.maybe(0.3, () => el('boot', { order: String(n + 1) })),
      c.maybe(0.3, () => el('teaming', { type: 'persistent' })),
      c.maybe(0.3, () => el('alias', { name: 'ua-net' })),
    ]),
  );

const ports = (arm: boolean): Node[] => [
  el('controller', { type: 'pci', index: '0', model: 'pcie-root' }),
  el('controller', { type: 'pci', index: '1', model: 'pcie-root-port' }),
  ...(arm
    ? [el('controller', { type: 'pci', index: '2', model: 'pcie-expander-bus' }, [el('target', { busNr: '20' })])]
    : []),
];

/** A domain that is mostly sound. `type` is that of the domain. */
function soundDomain(c: Chance, id: string, type: string): Node {
  const arm = c.next() < 0.25;
  const isViommu = c.next() < 0.7;
  const machine = arm ? 'virt' : c.pick(['q35', 'q35', 'pc-q35-7.2', isViommu && c.next() < 0.9 ? 'q35' : 'pc']);
  const uefi = arm && c.next() < 0.7;
  const kinds = [hostdev, hostdev, hostdev, hostdevInterface, hostdevInterface, nvmeDisk, fileDisk, bridge];
  const devices: Node[] = [];
  for (let n = 0, most = Math.floor(c.next() * 3); n < most; n += 1) devices.push(c.pick(kinds)(c, n));
  const iommus = isViommu ? [iommu(c, arm)] : [];
  if (iommus.length > 0 && c.next() < 0.06) iommus.push(iommu(c, arm));
  const ioapic = c.pick([
    [],
    ...Array.from({ length: 5 }, () => [el('ioapic', { driver: 'qemu' })]),
    [el('ioapic', { driver: 'kvm' })],
  ]);
  return el('domain', { type }, [
    el('name', {}, [id]),
    el('memory', { unit: 'MiB' }, ['64']),
    el('vcpu', c.pick([{}, {}, { placement: 'static' }]), [
      c.pick(['1', '2', '2', '4', '8', '8', '16', '255', '256', '300']),
    ]),
    el('os', {}, [
      el('type', { arch: arm ? 'aarch64' : 'x86_64', machine }, ['hvm']),
      uefi ? el('loader', { readonly: 'yes', type: 'pflash' }, ['/usr/share/AAVMF/AAVMF_CODE.fd']) : '',
      c.maybe(0.05, () => el('boot', { dev: 'hd' })),
    ]),
    el('features', {}, [...(arm && !uefi ? [] : [el('acpi')]), ...(arm ? [] : ioapic)]),
    c.maybe(0.1, () =>
      el('cpu', c.pick([{ mode: 'host-passthrough' }, { mode: 'host-model' }, { mode: 'custom', match: 'exact' }]), []),
    ),
    el(
      'devices',
      {},
      shuffled(c, [
        ...iommus,
        ...devices,
        ...(c.next() < 0.15 && machine !== 'pc' ? ports(arm) : []),
        el('memballoon', { model: 'none' }),
      ]),
    ),
  ]);
}

/** Where a change is worth most: what the rules are about. */
const WORTH =
  /^(iommu|driver|address|source|hostdev|interface|disk|rom|boot|acpi|alias|teaming|vlan|tag|mac|virtualport|parameters|ioapic|features|controller|vcpu|type)$/;

/** One change of a tree in place. */
function change(c: Chance, root: Node): void {
  const all = nodesOf(root);
  const worthy = all.filter((n) => WORTH.test(n.name));
  const node = c.next() < 0.9 && worthy.length > 0 ? c.pick(worthy) : c.pick(all);
  const attribute = node.attributes.length > 0 ? c.pick(node.attributes) : null;
  const at = Math.floor(c.next() * node.children.length);
  const one = node.children[at];
  switch (
    c.pick([
      'value',
      'value',
      'value',
      'drop',
      'add',
      'add',
      'unchild',
      'twice',
      'order',
      'child',
      'text',
      'move',
      'note',
    ])
  ) {
    case 'value':
      if (attribute) attribute[1] = value(c, attribute[0]);
      break;
    case 'drop':
      if (attribute) node.attributes.splice(node.attributes.indexOf(attribute), 1);
      break;
    case 'add': {
      const name = c.next() < 0.9 ? c.pick(ATTRIBUTES) : 'foo';
      if (!node.attributes.some(([n]) => n === name)) node.attributes.push([name, value(c, name)]);
      break;
    }
    case 'unchild':
      if (one !== undefined) node.children.splice(at, 1);
      break;
    case 'twice':
      if (one !== undefined)
        node.children.splice(
          Math.floor(c.next() * (node.children.length + 1)),
          0,
          typeof one === 'string' ? one : clone(one),
        );
      break;
    case 'order':
      shuffled(c, node.children);
      break;
    case 'child': {
      const name = c.pick(STRANGE);
      const attributes = c.next() < 0.5 ? {} : { [c.pick(ATTRIBUTES)]: value(c, c.pick(ATTRIBUTES)) };
      node.children.splice(at, 0, name === 'x:y' ? el('x:y', { 'xmlns:x': 'urn:x' }) : el(name, attributes));
      break;
    }
    case 'text':
      node.children.push(c.pick([' ', 'x', '\n', '<![CDATA[x]]>', '<![CDATA[ ]]>', '&#160;']));
      break;
    case 'move': {
      const to = c.pick(all);
      if (one !== undefined && typeof one !== 'string' && !nodesOf(one).includes(to)) {
        node.children.splice(at, 1);
        to.children.push(one);
      }
      break;
    }
    default:
      node.children.splice(at, 0, c.pick(['<!-- a note -->', '<?pi x?>']));
  }
}

export type FuzzDomain = { id: string; tree: Node };

/** `count` domains of a seed, of the domain type `type`; ids begin with "fuzz-". */
export function fuzzDomains(seed: number, count: number, type: string): FuzzDomain[] {
  const c = chance(seed);
  return Array.from({ length: count }, (_, i) => {
    const id = `fuzz-${seed}-${i}`;
    const tree = soundDomain(c, id, type);
    for (let n = c.pick([0, 1, 1, 1, 2, 2, 3]); n > 0; n -= 1) change(c, tree);
    return { id, tree };
  });
}
