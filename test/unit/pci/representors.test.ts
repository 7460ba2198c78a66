/** A PF in switchdev mode: its VFs' representors are interfaces of the PF, and stand for the VFs. */
import { afterEach, expect, test } from 'vitest';
import { loadNative } from '../../../src/addon/load.ts';
import { Host } from '../../../src/host/host.ts';
import { pciFacts } from '../../../src/pci/facts.ts';
import { scanInventory } from '../../../src/pci/inventory.ts';
import { DEFAULT, NET, ROUTE, route } from '../../mock/guarded.ts';
import { StaticHost } from '../../mock/tree.ts';
import { texts } from '../../mock/warnings.ts';

const hosts: StaticHost[] = [];
afterEach(() => {
  for (const h of hosts.splice(0)) h.remove();
});

const PF = '0000:81:00.0';
const VFS = ['0000:81:00.2', '0000:81:00.3'];
const net = (name: string): string => `sys/class/net/${name}`;

/**
 * Two VFs with an interface each; the representors `a0` and `a1` of the PF are ports of a switch, whose br-ex has the
 * default route.
 */
function switchdev(names: Record<string, string> = { a0: 'pf0vf0', a1: 'pf0vf1', up0: 'p0' }): StaticHost {
  const h = new StaticHost({
    drivers: { 'vfio-pci': 'vfio_pci' },
    devices: [
      { address: PF, ids: '15b3:1015', group: 30, driver: 'mlx5_core', totalVfs: 8 },
      ...VFS.map((address, n) => ({ address, ids: '15b3:1016', group: 31 + n, driver: 'mlx5_core', physfn: PF })),
    ],
    net: { 'ovs-system': null, 'br-ex': null, vf00: VFS[0] ?? '', vf01: VFS[1] ?? '', a0: PF, a1: PF, up0: PF },
    files: { 'proc/net/route': ROUTE + route('br-ex', DEFAULT, DEFAULT) },
  });
  hosts.push(h);
  h.file(`sys/bus/pci/devices/${PF}/sriov_numvfs`, '2\n');
  h.file(`sys/bus/pci/devices/${PF}/sriov_drivers_autoprobe`, '1\n');
  for (const [n, vf] of VFS.entries()) h.link(`sys/bus/pci/devices/${PF}/virtfn${n}`, `../${vf}`);
  for (const name of ['vf00', 'vf01', 'a0', 'a1', 'up0']) h.file(`${net(name)}/operstate`, 'up\n');
  for (const [name, port] of Object.entries(names)) {
    h.file(`${net(name)}/phys_port_name`, `${port}\n`);
    h.link(`${net(name)}/master`, '../../../../virtual/net/ovs-system');
    h.folder(`${net('ovs-system')}/lower_${name}`);
  }
  return h;
}

test.each(['pf0vf1', 'p0vf1', 'p0v1'])('a representor called %s names its VF, and says so', (port) => {
  const { exit, json } = switchdev({ a1: port }).run('-j', 'show', 'a1');
  expect(exit).toBe(0);
  expect(json.device.address).toBe(VFS[1]);
  expect(texts(json.warnings)).toEqual([`a1 is the representor of VF 1 of ${PF}: this is the VF`]);
});

test.each(['p0', 'pf0', 'p0s1', 'pf0sf1', '1', 'vf1', 'pf0vf1x'])('%s is an interface of the PF itself', (port) => {
  expect(switchdev({ a1: port }).run('-j', 'show', 'a1').json).toMatchObject({ device: { address: PF } });
});

test('a VF that is not there, and one of the machine around a SmartNIC, are not taken for another device', () => {
  const gone = switchdev({ a1: 'pf0vf7' }).run('-j', 'show', 'a1');
  expect(gone).toMatchObject({ exit: 4, json: { error: { code: 'HOSTDEV_DEVICE_ABSENT' } } });
  expect(gone.json.error.message).toContain(`representor of VF 7 of ${PF}`);
  const outside = switchdev({ a1: 'c1pf0vf1' }).run('-j', 'bind', '-n', 'a1');
  expect(outside.exit).toBe(4);
  expect(outside.json.error.message).toContain('representor of VF 1 of the machine that this card sits in');
});

test('a second port: its number tells the PF where the function that has the interfaces has no VFs', () => {
  const h = switchdev({ a1: 'pf1vf0' });
  expect(h.run('-j', 'show', 'a1').json.device.address).toBe(VFS[0]);
});

test('a VF whose representor is a port of the switch may leave; one that carries something itself may not', () => {
  const h = switchdev();
  expect(h.run('-j', 'bind', '-n', VFS[0] ?? '')).toMatchObject({ exit: 0, json: { plan: { refusals: [] } } });
  h.file('proc/net/route', ROUTE + route('br-ex', DEFAULT, DEFAULT) + route('vf00', ...NET));
  expect(h.run('-j', 'bind', '-n', VFS[0] ?? '').exit).toBe(5);
});

test('a PPP link needs no address below it: the VF may carry it, whatever its representor is a port of', () => {
  const h = switchdev();
  h.file(`${net('br-ex')}/type`, '512\n');
  expect(h.run('-j', 'bind', '-n', VFS[0] ?? '').err).toContain('may carry br-ex');
});

test('without a switch the VF may carry what nothing else is seen to carry', () => {
  const h = switchdev({});
  expect(h.run('-j', 'bind', '-n', VFS[0] ?? '').err).toContain('may carry br-ex');
});

test('the PF is refused for its VFs and for the switch', () => {
  const { exit, json } = switchdev().run('-j', 'bind', '-n', PF);
  expect(exit).toBe(5);
  expect([...new Set(json.plan.refusals.map((r) => r.guard))].sort()).toEqual(['network', 'vfs']);
  expect(json.error.message).toContain('part of ovs-system');
});

test('vf remove, and vf create through 0, say which ports of a switch go', () => {
  const h = switchdev();
  for (const args of [
    ['vf', 'remove', PF],
    ['vf', 'create', PF, '--count', '4', '--for', 'netdev', '--recreate'],
  ]) {
    const { exit, json } = h.run('-j', '-n', ...args);
    expect([args[1], exit, texts(json.warnings).slice(0, 2)]).toEqual([
      args[1],
      0,
      [0, 1].map(
        (n) => `a${n} is the representor of VF ${n} of ${PF}: it goes with the VF, and is a port of ovs-system`,
      ),
    ]);
  }
});

test('the interface of the PF is its own, not the first representor by name', () => {
  const host = new Host(switchdev().root, loadNative());
  expect(pciFacts(scanInventory(host), host).netdevs().get(PF)).toBe('up0');
});
