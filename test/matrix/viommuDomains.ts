/**
 * Domains with every vIOMMU model, attribute, machine and neighbour that a rule speaks of, made by combination: what
 * libvirt says of each is in test/data/viommu/verdicts.json, by libvirt and QEMU version.
 */

/** One domain: `id` is its name in the verdicts and in libvirt. */
export type MatrixDomain = { id: string; xml: string };

type Machine = 'q35' | 'pc' | 'pc-q35-7.2' | 'virt' | 'none' | 'virt-acpi';

type Recipe = {
  machine?: Machine;
  type?: string;
  vcpus?: number;
  /** Inside <features>; the default is what the machine can have. */
  features?: string;
  /** Inside <devices>. */
  devices?: string;
  /** Before </domain>. */
  tail?: string;
};

const OS: Record<Machine, string> = {
  q35: "<type arch='x86_64' machine='q35'>hvm</type>",
  'pc-q35-7.2': "<type arch='x86_64' machine='pc-q35-7.2'>hvm</type>",
  pc: "<type arch='x86_64' machine='pc'>hvm</type>",
  none: "<type arch='x86_64'>hvm</type>",
  virt: "<type arch='aarch64' machine='virt'>hvm</type>",
  'virt-acpi':
    "<type arch='aarch64' machine='virt'>hvm</type><loader readonly='yes' type='pflash'>/usr/share/AAVMF/AAVMF_CODE.fd</loader>",
};

const isArm = (m: Machine): boolean => m === 'virt' || m === 'virt-acpi';

function domain(id: string, recipe: Recipe): MatrixDomain {
  const { machine = 'q35', type = 'qemu', vcpus = 1, devices = '', tail = '' } = recipe;
  const features = recipe.features ?? (machine === 'virt' ? '' : '<acpi/>');
  const xml = `<domain type='${type}'>
  <name>${id}</name>
  <memory unit='MiB'>64</memory>
  <vcpu>${vcpus}</vcpu>
  <os>${OS[machine]}</os>
  <features>${features}</features>
  <devices>
    ${devices}
    <memballoon model='none'/>
  </devices>${tail}
</domain>
`;
  return { id, xml };
}

const QEMU_IOAPIC = "<acpi/><ioapic driver='qemu'/>";

const iommu = (model: string, driver = '', inside = ''): string =>
  driver === '' && inside === ''
    ? `<iommu model='${model}'/>`
    : `<iommu model='${model}'>${driver === '' ? '' : `<driver ${driver}/>`}${inside}</iommu>`;

/** The machine that a model is for. */
const HOME: Record<string, Machine> = { intel: 'q35', amd: 'q35', virtio: 'q35', smmuv3: 'virt' };
const MODELS = Object.keys(HOME);

const ATTRIBUTES: Record<string, string> = {
  intremap: 'on',
  caching_mode: 'on',
  eim: 'off',
  iotlb: 'on',
  aw_bits: '48',
  dma_translation: 'off',
  xtsup: 'on',
  passthrough: 'on',
  pciBus: '1',
  accel: 'on',
  ats: 'on',
  ril: 'on',
  ssidsize: '10',
  oas: '48',
  cmdqv: 'on',
};

function* modelsByMachine(): Generator<MatrixDomain> {
  for (const model of [...MODELS, 'none', 'vtd']) {
    for (const machine of Object.keys(OS) as Machine[]) {
      yield domain(`machine-${model}-${machine}`, { machine, devices: model === 'none' ? '' : iommu(model) });
    }
  }
}

function* modelsByAttribute(): Generator<MatrixDomain> {
  for (const model of MODELS) {
    const machine = HOME[model] ?? 'q35';
    const features = machine === 'q35' ? QEMU_IOAPIC : '';
    const ports = isArm(machine)
      ? "<controller type='pci' index='0' model='pcie-root'/><controller type='pci' index='1' model='pcie-root-port'/>"
      : '';
    for (const [name, value] of Object.entries(ATTRIBUTES)) {
      yield domain(`attr-${model}-${name}`, {
        machine,
        features,
        devices: `${ports}${iommu(model, `${name}='${value}'`)}`,
      });
      if (value === 'on') {
        yield domain(`attr-${model}-${name}-off`, {
          machine,
          features,
          devices: `${ports}${iommu(model, `${name}='off'`)}`,
        });
      }
    }
    yield domain(`driver-empty-${model}`, { machine, features, devices: `<iommu model='${model}'><driver/></iommu>` });
    for (const [name, granule] of Object.entries(GRANULES)) {
      yield domain(`granule-${model}-${name}`, {
        machine,
        features,
        devices: `<iommu model='${model}'><driver>${granule}</driver></iommu>`,
      });
    }
  }
}

const GRANULES: Record<string, string> = {
  host: "<granule mode='host'/>",
  '4k': "<granule size='4' unit='KiB'/>",
  '32k': "<granule size='32' unit='KiB'/>",
  '64k-bytes': "<granule size='65536' unit='B'/>",
  'no-unit': "<granule size='16384'/>",
  both: "<granule mode='host' size='4'/>",
  empty: '<granule/>',
};

function* ioapicAndEim(): Generator<MatrixDomain> {
  const ioapics: Record<string, string> = { none: '', qemu: "<ioapic driver='qemu'/>", kvm: "<ioapic driver='kvm'/>" };
  for (const [name, ioapic] of Object.entries(ioapics)) {
    for (const intremap of ['on', 'off', '']) {
      for (const eim of ['on', 'off', '']) {
        const driver = [intremap && `intremap='${intremap}'`, eim && `eim='${eim}'`].filter(Boolean).join(' ');
        yield domain(`ioapic-${name}-intremap-${intremap || 'absent'}-eim-${eim || 'absent'}`, {
          features: `<acpi/>${ioapic}`,
          devices: iommu('intel', driver),
        });
      }
    }
    yield domain(`ioapic-${name}-amd-intremap`, {
      features: `<acpi/>${ioapic}`,
      devices: iommu('amd', "intremap='on'"),
    });
  }
  yield domain('ioapic-arm', { machine: 'virt', features: "<ioapic driver='qemu'/>" });
  yield domain('ioapic-arm-virtio', { machine: 'virt-acpi', features: QEMU_IOAPIC, devices: iommu('virtio') });
  yield domain('ioapic-pc', { machine: 'pc', features: QEMU_IOAPIC });
  yield domain('ioapic-bad', { features: "<acpi/><ioapic driver='other'/>" });
}

function* vcpus(): Generator<MatrixDomain> {
  const setups: Record<string, Recipe> = {
    none: {},
    'none-qemu': { features: QEMU_IOAPIC },
    'none-kvm': { features: "<acpi/><ioapic driver='kvm'/>" },
    intel: { devices: iommu('intel') },
    'intel-kvm': { features: "<acpi/><ioapic driver='kvm'/>", devices: iommu('intel') },
    'intel-eim': { features: QEMU_IOAPIC, devices: iommu('intel', "intremap='on' eim='on'") },
    'intel-eim-no-ioapic': { devices: iommu('intel', "intremap='on' eim='on'") },
    'intel-eim-off': { features: QEMU_IOAPIC, devices: iommu('intel', "intremap='on' eim='off'") },
    'intel-intremap-off': { devices: iommu('intel', "intremap='off'") },
    'intel-caching': { devices: iommu('intel', "caching_mode='on'") },
    virtio: { devices: iommu('virtio') },
    amd: { devices: iommu('amd') },
    'amd-xtsup': { features: QEMU_IOAPIC, devices: iommu('amd', "intremap='on' xtsup='on'") },
    'amd-xtsup-off': { features: QEMU_IOAPIC, devices: iommu('amd', "intremap='on' xtsup='off'") },
    pc: { machine: 'pc' },
  };
  for (const [name, recipe] of Object.entries(setups)) {
    for (const count of [255, 256, 288]) yield domain(`vcpus-${count}-${name}`, { ...recipe, vcpus: count });
  }
  yield domain('vcpus-289-72', {
    machine: 'pc-q35-7.2',
    vcpus: 289,
    features: QEMU_IOAPIC,
    devices: iommu('intel', "intremap='on' eim='on'"),
  });
  yield domain('vcpus-1024', { vcpus: 1024, features: QEMU_IOAPIC, devices: iommu('intel', "intremap='on' eim='on'") });
  yield domain('vcpus-5000', { vcpus: 5000, features: QEMU_IOAPIC, devices: iommu('intel', "intremap='on' eim='on'") });
  yield domain('vcpus-300-arm', { machine: 'virt', vcpus: 300 });
  yield domain('vcpus-600-arm', { machine: 'virt', vcpus: 600 });
  yield domain('vcpus-zero', { vcpus: 0 });
}

function* values(): Generator<MatrixDomain> {
  for (const value of ['yes', 'ON', '', ' on', '1']) {
    yield domain(`value-caching-${value.trim() || 'empty'}${value.startsWith(' ') ? '-blank' : ''}`, {
      devices: iommu('intel', `caching_mode='${value}'`),
    });
  }
  for (const model of ['intel', 'virtio']) {
    for (const bits of [
      '0',
      '31',
      '32',
      '39',
      '57',
      '64',
      '65',
      '255',
      '256',
      '-1',
      '0x30',
      '048',
      ' 48',
      '48 ',
      '+48',
      'abc',
      '',
    ]) {
      const label = bits.replace(' ', 'blank').replace('+', 'plus').replace('-', 'minus') || 'empty';
      yield domain(`value-${model}-aw-${label}`, { devices: iommu(model, `aw_bits='${bits}'`) });
    }
  }
  for (const bus of ['0', '1', '7', '-1', '0x1', 'a', '']) {
    yield domain(`value-pcibus-${bus || 'empty'}`, {
      machine: 'virt',
      devices: `<controller type='pci' index='0' model='pcie-root'/><controller type='pci' index='1' model='pcie-expander-bus'><target busNr='64'/></controller>${iommu('smmuv3', `pciBus='${bus}'`)}`,
    });
  }
  for (const size of ['-1', '0', '20', '21', 'x']) {
    yield domain(`value-ssidsize-${size}`, {
      machine: 'virt',
      devices: iommu('smmuv3', `accel='on' ssidsize='${size}'`),
    });
  }
  yield domain('value-accel-off-ats', { machine: 'virt', devices: iommu('smmuv3', "accel='off' ats='on'") });
  yield domain('value-accel-ats', { machine: 'virt', devices: iommu('smmuv3', "accel='on' ats='on'") });
}

function* addresses(): Generator<MatrixDomain> {
  const all: Record<string, string> = {
    pci: "<address type='pci' domain='0x0000' bus='0x00' slot='0x1e' function='0x0'/>",
    'pci-any': "<address type='pci'/>",
    'pci-bus1': "<address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>",
    'pci-slot32': "<address type='pci' domain='0x0000' bus='0x00' slot='0x20' function='0x0'/>",
    'pci-function8': "<address type='pci' domain='0x0000' bus='0x00' slot='0x02' function='0x8'/>",
    usb: "<address type='usb' bus='0' port='1'/>",
    unassigned: "<address type='unassigned'/>",
    'no-type': "<address bus='0x00' slot='0x1e'/>",
    'bad-type': "<address type='other'/>",
    alias: "<alias name='ua-iommu'/>",
    acpi: "<acpi index='5'/>",
    'two-pci': "<address type='pci'/><address type='pci'/>",
  };
  const port =
    "<controller type='pci' index='0' model='pcie-root'/><controller type='pci' index='1' model='pcie-root-port'/>";
  for (const model of MODELS) {
    const machine = HOME[model] ?? 'q35';
    for (const [name, inside] of Object.entries(all)) {
      yield domain(`address-${model}-${name}`, { machine, devices: `${port}${iommu(model, '', inside)}` });
    }
  }
}

function* acpi(): Generator<MatrixDomain> {
  for (const model of MODELS) {
    if (model === 'smmuv3') continue;
    yield domain(`noacpi-${model}`, { features: '', devices: iommu(model) });
  }
  yield domain('noacpi-virtio-arm', { machine: 'virt', devices: iommu('virtio') });
  yield domain('acpi-virtio-arm', { machine: 'virt-acpi', features: '<acpi/>', devices: iommu('virtio') });
  yield domain('acpi-smmuv3-arm', { machine: 'virt-acpi', features: '<acpi/>', devices: iommu('smmuv3') });
  yield domain('acpi-arm-no-uefi', { machine: 'virt', features: '<acpi/>', devices: iommu('smmuv3') });
}

function* several(): Generator<MatrixDomain> {
  const pxb = (index: number, bus: number): string =>
    `<controller type='pci' index='${index}' model='pcie-expander-bus'><target busNr='${bus}'/></controller>`;
  const root = "<controller type='pci' index='0' model='pcie-root'/>";
  yield domain('two-intel', { devices: iommu('intel') + iommu('intel') });
  yield domain('two-virtio', { devices: iommu('virtio') + iommu('virtio') });
  yield domain('two-amd', { devices: iommu('amd') + iommu('amd') });
  yield domain('two-intel-virtio', { devices: iommu('intel') + iommu('virtio') });
  yield domain('two-smmuv3-bare', { machine: 'virt', devices: iommu('smmuv3') + iommu('smmuv3') });
  yield domain('two-smmuv3-bus', {
    machine: 'virt',
    devices: root + pxb(1, 64) + pxb(2, 128) + iommu('smmuv3', "pciBus='1'") + iommu('smmuv3', "pciBus='2'"),
  });
  yield domain('two-smmuv3-same-bus', {
    machine: 'virt',
    devices: root + pxb(1, 64) + iommu('smmuv3', "pciBus='1'") + iommu('smmuv3', "pciBus='1'"),
  });
  yield domain('two-smmuv3-one-bus', {
    machine: 'virt',
    devices: root + pxb(1, 64) + iommu('smmuv3', "pciBus='1'") + iommu('smmuv3'),
  });
  yield domain('two-smmuv3-virtio', { machine: 'virt-acpi', devices: iommu('smmuv3') + iommu('virtio') });
  yield domain('one-smmuv3-bus-pxb', { machine: 'virt', devices: root + pxb(1, 64) + iommu('smmuv3', "pciBus='1'") });
}

function* shapes(): Generator<MatrixDomain> {
  const shape: Record<string, string> = {
    'no-model': '<iommu/>',
    'empty-model': "<iommu model=''/>",
    'case-model': "<iommu model='Intel'/>",
    'unknown-attribute': "<iommu model='intel' name='x'/>",
    'unknown-driver-attribute': "<iommu model='intel'><driver name='x'/></iommu>",
    'unknown-child': "<iommu model='intel'><target/></iommu>",
    'unknown-driver-child': "<iommu model='intel'><driver><foo/></driver></iommu>",
    'two-drivers': "<iommu model='intel'><driver/><driver iotlb='on'/></iommu>",
    text: "<iommu model='intel'>text</iommu>",
    blanks: "<iommu model='intel'>\n  \n</iommu>",
    comment: "<iommu model='intel'><!-- a comment --></iommu>",
    'foreign-element': "<iommu model='intel'><x:y xmlns:x='urn:x'/></iommu>",
    'foreign-attribute': "<iommu model='intel' xmlns:x='urn:x' x:y='1'/>",
    'virtio-driver-iommu': "<iommu model='virtio'><driver iommu='on'/></iommu>",
    'attributes-on-iommu': "<iommu model='intel' intremap='on'/>",
    'device-iotlb': "<iommu model='intel'><driver device_iotlb='on'/></iommu>",
  };
  for (const [name, devices] of Object.entries(shape)) yield domain(`shape-${name}`, { devices });
}

/** What Nova writes (nova/virt/libvirt/config.py LibvirtConfigGuestIOMMU), for every model and machine. */
function* nova(): Generator<MatrixDomain> {
  for (const model of MODELS.filter((m) => m !== 'amd')) {
    const machine = HOME[model] ?? 'q35';
    const driver = `intremap='on' caching_mode='on' aw_bits='48' eim='${machine === 'q35' ? 'on' : 'off'}' iotlb='on'`;
    yield domain(`nova-${model}`, {
      machine,
      features: machine === 'q35' ? QEMU_IOAPIC : "<ioapic driver='qemu'/>",
      devices: iommu(model, driver),
    });
  }
  yield domain('nova-intel-pc', {
    machine: 'pc',
    features: QEMU_IOAPIC,
    devices: iommu('intel', "intremap='on' caching_mode='on' aw_bits='48' eim='off' iotlb='on'"),
  });
}

/** Host devices beside the vIOMMU: what the parser and the validators of hostdev, interface and disk say. */
function* devices(): Generator<MatrixDomain> {
  const address = "<address domain='0x0000' bus='0x41' slot='0x00' function='0x0'/>";
  const hostdev = (inside: string, more = ''): string =>
    `<hostdev mode='subsystem' type='pci'${more}>${inside}</hostdev>`;
  const source = `<source>${address}</source>`;
  const all: Record<string, string> = {
    plain: hostdev(source),
    managed: hostdev(source, " managed='yes'"),
    'managed-bad': hostdev(source, " managed='maybe'"),
    'no-source': hostdev(''),
    'no-address': hostdev('<source/>'),
    'no-domain': hostdev("<source><address bus='0x41' slot='0x00' function='0x0'/></source>"),
    'no-bus': hostdev("<source><address domain='0x0000' slot='0x1' function='0x0'/></source>"),
    decimal: hostdev("<source><address domain='0' bus='65' slot='0' function='0'/></source>"),
    'slot-32': hostdev("<source><address domain='0' bus='65' slot='32' function='0'/></source>"),
    'slot-0x20': hostdev("<source><address domain='0' bus='65' slot='0x20' function='0'/></source>"),
    'function-8': hostdev("<source><address domain='0' bus='65' slot='0' function='8'/></source>"),
    'bus-256': hostdev("<source><address domain='0' bus='256' slot='0' function='0'/></source>"),
    'domain-big': hostdev("<source><address domain='0x10000' bus='65' slot='0' function='0'/></source>"),
    'address-zero': hostdev("<source><address domain='0' bus='0' slot='0' function='0'/></source>"),
    duplicate: hostdev(source) + hostdev(source),
    'duplicate-interface': `${hostdev(source)}<interface type='hostdev'><source>${address.replace('<address', "<address type='pci'")}</source></interface>`,
    unassigned: hostdev(`${source}<address type='unassigned'/>`),
    'unassigned-managed': hostdev(`${source}<address type='unassigned'/>`, " managed='yes'"),
    'guest-address-usb': hostdev(`${source}<address type='usb' bus='0' port='1'/>`),
    'driver-vfio': hostdev(`<driver name='vfio'/>${source}`),
    'driver-kvm': hostdev(`<driver name='kvm'/>${source}`),
    'driver-xen': hostdev(`<driver name='xen'/>${source}`),
    'driver-other': hostdev(`<driver name='mlx5'/>${source}`),
    'driver-model': hostdev(`<driver model='mlx5_vfio_pci'/>${source}`),
    'driver-name-model': hostdev(`<driver name='vfio' model='mlx5_vfio_pci'/>${source}`),
    'driver-iommufd': hostdev(`<driver iommufd='yes'/>${source}`),
    'driver-iommufd-no': hostdev(`<driver iommufd='no'/>${source}`),
    'driver-empty': hostdev(`<driver/>${source}`),
    'write-filtering': hostdev(`<source writeFiltering='no'>${address}</source>`),
    'rom-off': hostdev(`${source}<rom enabled='no'/>`),
    'rom-off-bar': hostdev(`${source}<rom enabled='no' bar='on'/>`),
    'rom-file': hostdev(`${source}<rom bar='on' file='/usr/share/rom.bin'/>`),
    'rom-bad': hostdev(`${source}<rom bar='yes'/>`),
    boot: hostdev(`${source}<boot order='1'/>`),
    'boot-zero': hostdev(`${source}<boot order='0'/>`),
    'boot-twice': `${hostdev(`${source}<boot order='1'/>`)}${hostdev("<source><address domain='0' bus='0x42' slot='0' function='0'/></source><boot order='1'/>")}`,
    'boot-unassigned': hostdev(`${source}<boot order='1'/><address type='unassigned'/>`),
    teaming: hostdev(`<teaming type='transient' persistent='ua-net'/>${source}`),
    'teaming-no-persistent': hostdev(`<teaming type='transient'/>${source}`),
    'teaming-persistent': hostdev(`<teaming type='persistent'/>${source}`),
    'display-on': hostdev(source, " display='on'"),
    'display-off': hostdev(source, " display='off'"),
    ramfb: hostdev(source, " display='on' ramfb='on'"),
    'no-type': `<hostdev mode='subsystem'>${source}</hostdev>`,
    'no-mode': `<hostdev type='pci'>${source}</hostdev>`,
    'bad-mode': `<hostdev mode='other' type='pci'>${source}</hostdev>`,
    'unknown-child': hostdev(`${source}<foo/>`),
    'acpi-nodeset': hostdev(`${source}<acpi nodeset='1-2'/>`),
    'two-sources': hostdev(`${source}${source}`),
    interface: `<interface type='hostdev' managed='yes'><source><address type='pci' domain='0' bus='0x41' slot='0x10' function='0'/></source></interface>`,
    'interface-mac-vlan': `<interface type='hostdev' managed='yes'><mac address='52:54:00:6d:90:02'/><source><address type='pci' domain='0' bus='0x41' slot='0x10' function='0'/></source><vlan><tag id='42'/></vlan></interface>`,
    'interface-trunk': `<interface type='hostdev'><source><address type='pci' domain='0' bus='0x41' slot='0x10' function='0'/></source><vlan trunk='yes'><tag id='42'/><tag id='43'/></vlan></interface>`,
    'interface-two-tags': `<interface type='hostdev'><source><address type='pci' domain='0' bus='0x41' slot='0x10' function='0'/></source><vlan><tag id='42'/><tag id='43'/></vlan></interface>`,
    'interface-vlan-4096': `<interface type='hostdev'><source><address type='pci' domain='0' bus='0x41' slot='0x10' function='0'/></source><vlan><tag id='4096'/></vlan></interface>`,
    'interface-qbh': `<interface type='hostdev'><source><address type='pci' domain='0' bus='0x41' slot='0x10' function='0'/></source><virtualport type='802.1Qbh'><parameters profileid='finance'/></virtualport></interface>`,
    'interface-qbg': `<interface type='hostdev'><source><address type='pci' domain='0' bus='0x41' slot='0x10' function='0'/></source><virtualport type='802.1Qbg'><parameters managerid='11' typeid='1193047' typeidversion='2' instanceid='09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f'/></virtualport></interface>`,
    'interface-qbh-vlan': `<interface type='hostdev'><source><address type='pci' domain='0' bus='0x41' slot='0x10' function='0'/></source><vlan><tag id='42'/></vlan><virtualport type='802.1Qbh'><parameters profileid='finance'/></virtualport></interface>`,
    'interface-no-type': `<interface type='hostdev'><source>${address}</source></interface>`,
    'interface-usb': `<interface type='hostdev'><source><address type='usb' bus='0' device='2'/></source></interface>`,
    'interface-no-source': `<interface type='hostdev'/>`,
    'interface-model': `<interface type='hostdev'><source><address type='pci' domain='0' bus='0x41' slot='0x10' function='0'/></source><model type='virtio'/></interface>`,
    'interface-driver-vfio': `<interface type='hostdev'><driver name='vfio'/><source><address type='pci' domain='0' bus='0x41' slot='0x10' function='0'/></source></interface>`,
    'interface-driver-model': `<interface type='hostdev'><driver model='mlx5_vfio_pci'/><source><address type='pci' domain='0' bus='0x41' slot='0x10' function='0'/></source></interface>`,
    'interface-bandwidth': `<interface type='hostdev'><source><address type='pci' domain='0' bus='0x41' slot='0x10' function='0'/></source><bandwidth><inbound average='1000'/></bandwidth></interface>`,
    'interface-multicast': `<interface type='hostdev'><mac address='01:54:00:6d:90:02'/><source><address type='pci' domain='0' bus='0x41' slot='0x10' function='0'/></source></interface>`,
    'interface-bad-mac': `<interface type='hostdev'><mac address='52:54:00:6d:90'/><source><address type='pci' domain='0' bus='0x41' slot='0x10' function='0'/></source></interface>`,
    'interface-teaming': `<interface type='hostdev'><mac address='52:54:00:6d:90:02'/><source><address type='pci' domain='0' bus='0x41' slot='0x10' function='0'/></source><teaming type='transient' persistent='ua-net'/></interface>`,
    'interface-teaming-none': `<interface type='hostdev'><source><address type='pci' domain='0' bus='0x41' slot='0x10' function='0'/></source><teaming type='transient'/></interface>`,
    nvme: `<disk type='nvme' device='disk'><driver name='qemu' type='raw'/><source type='pci' managed='yes' namespace='1'>${address}</source><target dev='vda' bus='virtio'/></disk>`,
    'nvme-two-namespaces': [1, 2]
      .map(
        (n) =>
          `<disk type='nvme' device='disk'><driver name='qemu' type='raw'/><source type='pci' managed='yes' namespace='${n}'>${address}</source><target dev='vd${n === 1 ? 'a' : 'b'}' bus='virtio'/></disk>`,
      )
      .join(''),
    'nvme-same-namespace': [1, 2]
      .map(
        (n) =>
          `<disk type='nvme' device='disk'><driver name='qemu' type='raw'/><source type='pci' managed='yes' namespace='1'>${address}</source><target dev='vd${n === 1 ? 'a' : 'b'}' bus='virtio'/></disk>`,
      )
      .join(''),
    'nvme-no-namespace': `<disk type='nvme' device='disk'><driver name='qemu' type='raw'/><source type='pci' managed='yes'>${address}</source><target dev='vda' bus='virtio'/></disk>`,
    'nvme-namespace-0': `<disk type='nvme' device='disk'><driver name='qemu' type='raw'/><source type='pci' managed='yes' namespace='0'>${address}</source><target dev='vda' bus='virtio'/></disk>`,
    'nvme-hostdev': `${hostdev(source)}<disk type='nvme' device='disk'><driver name='qemu' type='raw'/><source type='pci' managed='no' namespace='1'>${address}</source><target dev='vda' bus='virtio'/></disk>`,
  };
  for (const [name, xml] of Object.entries(all)) {
    yield domain(`device-${name}`, { devices: xml });
  }
  yield domain('device-intel-no-caching', { devices: hostdev(source) + iommu('intel') });
  yield domain('device-intel-caching', { devices: hostdev(source) + iommu('intel', "caching_mode='on'") });
  yield domain('device-virtio', { devices: hostdev(source) + iommu('virtio') });
  yield domain('device-smmuv3', { machine: 'virt', devices: hostdev(source) + iommu('smmuv3') });
  yield domain('device-iommufd-domain', { devices: hostdev(source), tail: "\n  <iommufd enabled='yes'/>" });
}

/** All domains of the matrix; no id is there twice. */
export function viommuDomains(): MatrixDomain[] {
  return [
    ...modelsByMachine(),
    ...modelsByAttribute(),
    ...ioapicAndEim(),
    ...vcpus(),
    ...values(),
    ...addresses(),
    ...acpi(),
    ...several(),
    ...shapes(),
    ...nova(),
    ...devices(),
  ];
}
