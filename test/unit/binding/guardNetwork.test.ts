/** The network guard, by every link that says what an interface is used for. */
import {
  AT,
  type Case,
  DEFAULT,
  DEV,
  freeOf,
  mount,
  NET,
  nic,
  ROUTE,
  type Row,
  refused,
  route,
} from '../../mock/guarded.ts';

const ROWS: Row[] = [
  // Network.
  [
    'network',
    'the default route, IPv4',
    nic({ 'proc/net/route': ROUTE + route('eth0', DEFAULT, DEFAULT) }),
    /^eth0 has the default route$/,
    true,
  ],
  [
    'network',
    'the default route, IPv6',
    nic({
      'proc/net/ipv6_route': `${'0'.repeat(32)} 00 ${'0'.repeat(32)} 00 fe80000000000000000000000000000a 00000400 00000001 00000000 00000003     eth0\n`,
    }),
    /^eth0 has the default route$/,
    true,
  ],
  ...(['00000000', '00000080'] as const).map(
    (half): Row => [
      'network',
      `half of the default route, ${half}`,
      nic({ 'proc/net/route': ROUTE + route('eth0', half, '00000080') }),
      /^eth0 has the default route$/,
      true,
    ],
  ),
  [
    'network',
    'all that is routed anywhere, IPv6',
    nic({
      'proc/net/ipv6_route': `2${'0'.repeat(31)} 03 ${'0'.repeat(32)} 00 fe80000000000000000000000000000a 00000400 00000001 00000000 00000003     eth0\n`,
    }),
    /^eth0 has the default route$/,
    true,
  ],
  [
    'network',
    'part of a VRF',
    nic(
      { 'sys/devices/virtual/net/vrf0/uevent': 'DEVTYPE=vrf\nINTERFACE=vrf0\n' },
      { net: { vrf0: null }, links: { [`${AT}/net/eth0/master`]: '../../../../virtual/net/vrf0' } },
    ),
    /^eth0 is part of vrf0, a VRF whose routes are not to be seen$/,
    true,
  ],
  ['network', 'an IPv4 address', nic({ 'proc/net/route': ROUTE + route('eth0', ...NET) }), /^eth0 has an address$/],
  [
    'network',
    'an IPv4 address, which fib_trie knows',
    nic({
      'proc/net/route': ROUTE + route('eth0', ...NET),
      'proc/net/fib_trie': 'Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 192.168.1.7\n        /32 host LOCAL\n',
    }),
    /^eth0 has the address 192.168.1.7$/,
  ],
  [
    'network',
    'a global IPv6 address',
    nic({ 'proc/net/if_inet6': '20010db8000000000000000000000007 02 40 00 80     eth0\n' }),
    /^eth0 has the address 2001:0db8:/,
  ],
  [
    'network',
    'a site-local IPv6 address',
    nic({ 'proc/net/if_inet6': 'fec00000000000000000000000000007 02 40 40 80     eth0\n' }),
    /^eth0 has the address fec0:/,
  ],
  [
    'network',
    'a bridge above it (master)',
    nic({}, { net: { br0: null }, links: { [`${AT}/net/eth0/master`]: '../../../../virtual/net/br0' } }),
    /^eth0 is part of br0$/,
  ],
  [
    'network',
    'a bridge above it (brport)',
    nic({}, { net: { br0: null }, links: { [`${AT}/net/eth0/brport/bridge`]: '../../../../../virtual/net/br0' } }),
    /^eth0 is part of br0$/,
  ],
  [
    'network',
    'Open vSwitch above it',
    nic(
      {},
      { net: { 'ovs-system': null }, links: { [`${AT}/net/eth0/master`]: '../../../../virtual/net/ovs-system' } },
    ),
    /^eth0 is part of ovs-system$/,
  ],
  [
    'network',
    'a VLAN above it (upper_)',
    nic({}, { net: { 'eth0.5': null }, links: { [`${AT}/net/eth0/upper_eth0.5`]: '../../../../virtual/net/eth0.5' } }),
    /^eth0 is below eth0\.5$/,
  ],
  [
    'network',
    'macvtap above it (lower_ only)',
    nic(
      {},
      {
        net: { macvtap0: null },
        links: { 'sys/devices/virtual/net/macvtap0/lower_eth0': `../../../pci0000:05/${DEV}/net/eth0` },
      },
    ),
    /^eth0 is below macvtap0$/,
  ],
  [
    'network',
    'the default route two floors up',
    nic(
      { 'proc/net/route': ROUTE + route('br0', DEFAULT, DEFAULT) + route('br0', ...NET) },
      {
        net: { bond0: null, br0: null },
        links: {
          [`${AT}/net/eth0/master`]: '../../../../virtual/net/bond0',
          'sys/devices/virtual/net/bond0/master': '../br0',
        },
      },
    ),
    /^bond0 is part of br0, which has the default route$/,
    true,
  ],
  [
    'network',
    'the way to an NFS server from which /var comes',
    nic({
      'proc/net/route': ROUTE + route('eth0', ...NET),
      'proc/self/mountinfo':
        '29 1 0:40 / /var rw - nfs4 nas:/var rw,vers=4.2,addr=192.168.1.9,clientaddr=192.168.1.2\n',
    }),
    /^eth0 is the way to 192\.168\.1\.9, where \/var \(nfs4\) is$/,
    true,
  ],
  [
    'network',
    'the way to an NFS server of something that the system can do without, by IPv6',
    nic({
      'proc/net/ipv6_route': `20010db8000000000000000000000000 40 ${'0'.repeat(32)} 00 ${'0'.repeat(32)} 00000400 00000001 00000000 00000001     eth0\n`,
      'proc/self/mountinfo': '29 1 0:40 / /srv rw - nfs4 nas:/srv rw,addr=2001:db8::9\n',
    }),
    /^eth0 is the way to 2001:db8::9, where \/srv \(nfs4\) is$/,
  ],
  [
    'network',
    'the way to an iSCSI target whose disk carries /var, below a bridge',
    nic(
      {
        'proc/net/route': ROUTE + route('br0', ...NET),
        'proc/self/mountinfo': mount('8:16', '/var', '/dev/sdb'),
        'sys/class/iscsi_connection/connection1:0/persistent_address': '192.168.1.9\n',
        'sys/devices/platform/host9/session1/target9:0:0/9:0:0:0/block/sdb/dev': '8:16\n',
      },
      {
        net: { br0: null },
        links: {
          [`${AT}/net/eth0/master`]: '../../../../virtual/net/br0',
          'sys/class/block/sdb': '../../devices/platform/host9/session1/target9:0:0/9:0:0:0/block/sdb',
        },
      },
    ),
    /^eth0 is the way to 192\.168\.1\.9, where a disk \(iSCSI\) of which sdb is mounted on \/var is$/,
    true,
  ],
  [
    'network',
    'up below a tunnel that has the default route and shows nothing below it',
    nic(
      { [`${AT}/net/eth0/flags`]: '0x1003\n', 'proc/net/route': ROUTE + route('ppp0', DEFAULT, DEFAULT) },
      { net: { ppp0: null } },
    ),
    /^eth0 is up and may carry ppp0, which has the default route$/,
    true,
  ],
  [
    'network',
    'a NIC of virtio',
    {
      device: { class: '020000', driver: 'virtio-pci' },
      links: { 'sys/class/net/ens2': `../../devices/pci0000:05/${DEV}/virtio0/net/ens2` },
      files: { [`${AT}/virtio0/net/ens2/mtu`]: '1500\n', 'proc/net/route': ROUTE + route('ens2', DEFAULT, DEFAULT) },
    },
    /^ens2 has the default route$/,
    true,
  ],
];

refused(ROWS);

/** What looks like a use and is none. */
const FREE: [string, Case][] = [
  [
    'link-local addresses',
    nic({
      'proc/net/route': ROUTE + route('eth0', '0000FEA9', '0000FFFF'),
      'proc/net/if_inet6': 'fe800000000000000000000000000007 02 40 20 80     eth0\n',
    }),
  ],
  [
    "another interface's route, of a longer name",
    nic(
      {
        'proc/net/route': ROUTE + route('eth01', DEFAULT, DEFAULT),
        'proc/net/ipv6_route': `${'0'.repeat(32)} 00 ${'0'.repeat(32)} 00 ${'0'.repeat(32)} ffffffff 00000001 00000000 00200200       lo\n`,
      },
      { net: { eth01: null } },
    ),
  ],
];

freeOf(FREE);
