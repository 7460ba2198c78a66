/**
 * What is said of a member that keeps a group from a guest: that its driver makes the device (VMD), or what the host
 * would lose with it. One answer for all who say it.
 */
import { afterEach, describe, expect, test } from 'vitest';
import type { Cause } from '../../../src/doctor/cause.ts';
import type { Finding } from '../../../src/text/finding.ts';
import { DEFAULT, ROUTE, route } from '../../mock/guarded.ts';
import { hostdev, type Ran, StaticHost, type Tree, type TreeDevice } from '../../mock/tree.ts';
import { texts } from '../../mock/warnings.ts';

const hosts: StaticHost[] = [];
afterEach(() => {
  for (const h of hosts.splice(0)) h.remove();
});

const REMAPPED = { 'proc/interrupts': ' 24:  0  IR-PCI-MSI-0000:00:01.0  0-edge  x\n' };

function root(tree: Tree): StaticHost {
  const h = new StaticHost({ drivers: { 'vfio-pci': 'vfio_pci' }, ...tree, files: { ...REMAPPED, ...tree.files } });
  hosts.push(h);
  return h;
}

const element = (address: string): string => {
  const [domain = '', bus = '', rest = ''] = address.split(':');
  const [slot = '', func = ''] = rest.split('.');
  return `<hostdev mode='subsystem' type='pci' managed='no'><source><address domain='0x${domain}' bus='0x${bus}' slot='0x${slot}' function='0x${func}'/></source></hostdev>`;
};
const xml = (addresses: readonly string[]): string =>
  `<domain type='kvm'><name>g</name><uuid>624392bd-9784-4e20-8b29-1e85f123c67d</uuid><memory unit='GiB'>1</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features><devices>${addresses.map(element).join('')}</devices></domain>`;

const on = (h: StaticHost, args: string[], addresses: readonly string[]): Ran =>
  hostdev(['--root', h.root, '-j', ...args], { input: xml(addresses) });
const hook = (h: StaticHost, ...addresses: string[]): Ran => on(h, ['hook', 'test', '-'], addresses);
const causes = (h: StaticHost, address: string): Cause[] =>
  (h.run('-j', 'group', 'why', address).json as unknown as { why: { causes: Cause[] } }).why.causes;
const groupFix = (h: StaticHost, address: string): string | undefined => {
  const { findings } = on(h, ['domain', 'check', '-'], [address]).json as unknown as {
    findings: Finding[];
  };
  return findings.find((f) => f.id === 'host-group')?.fix[0]?.line;
};

describe('a function whose driver makes the device', () => {
  const VMD = '0000:00:0e.0';
  const PORT = '10000:e0:1d.4';
  const NVME = '10000:e1:00.0';
  const BESIDE = '0000:00:0d.0';

  /**
   * The controller makes a bus of its own below itself, `maker` drives it; idle disks behind it, and another device in
   * the group.
   */
  function vmd(maker = 'vmd', more: TreeDevice[] = []): StaticHost {
    const h = root({
      devices: [
        { address: VMD, ids: '8086:467f', class: '010400', group: 9, driver: maker },
        { address: PORT, ids: '8086:7a34', class: '060400', group: 9, driver: 'pcieport' },
        { address: NVME, ids: '144d:a80c', class: '010802', group: 9, driver: 'nvme' },
        ...more,
      ],
    });
    const behind = `pci0000:00/${VMD}/pci10000:e0/${PORT}`;
    h.link(`sys/devices/${behind}`, `../../../pci10000:e0/${PORT}`);
    h.link(`sys/devices/pci10000:e0/${PORT}/${NVME}`, `../../pci10000:e1/${NVME}`);
    h.link(`sys/bus/pci/devices/${PORT}`, `../../../devices/${behind}`);
    h.link(`sys/bus/pci/devices/${NVME}`, `../../../devices/${behind}/${NVME}`);
    h.link('sys/class/block/nvme0n1', `../../devices/${behind}/${NVME}/nvme/nvme0/nvme0n1`);
    return h;
  }

  test.each(['vmd', 'another_maker'])(
    'on %s: nobody advises to take it, all say that the device would be gone',
    (maker) => {
      const h = vmd(maker);
      const said = [
        ...causes(h, NVME).map((c) => `${c.cause} ${c.change}`),
        hook(h, NVME).err,
        groupFix(h, NVME) ?? '',
        on(h, ['domain', 'plan', '-', '--device', NVME], []).err,
        on(h, ['domain', 'plan', '-', '--device', NVME, '--unassigned-peers'], []).err,
      ];
      for (const text of said) expect(text).not.toMatch(/hostdev bind 0000:00:0e\.0|slot='0x0e'|--unassigned-peers/);
      for (const text of said.slice(-4)) expect(text).toContain(`while ${maker} makes it`);
      expect(causes(h, NVME).map((c) => c.id)).toEqual(expect.arrayContaining(['peer-driver', 'maker']));
      expect(causes(h, NVME).find((c) => c.id === 'maker')).toMatchObject({ object: VMD, blocks: false });
      expect(hook(h, NVME)).toMatchObject({ exit: 3, json: { error: { code: 'HOSTDEV_GROUP_NOT_VIABLE' } } });
      expect(hook(h, NVME).json.error.message).toContain(`which makes ${PORT}, ${NVME}: gone without it`);
    },
  );

  test('both in one domain, and both in one bind, are refused; bind of the group leaves the maker out', () => {
    const h = vmd();
    const both = hook(h, NVME, VMD);
    expect(both).toMatchObject({ exit: 5, json: { error: { code: 'HOSTDEV_GUARD' } } });
    expect(both.json.error.message).toContain(`${NVME} is made by the driver of ${VMD}`);
    expect(h.run('-j', 'bind', '-n', NVME, VMD).json.plan.refusals).toContainEqual(
      expect.objectContaining({ address: NVME, reason: expect.stringContaining(`the driver of ${VMD} makes it`) }),
    );
    const group = h.run('-j', 'bind', '-n', '--group', 'endpoints', NVME);
    expect([group.exit, group.json.plan.devices.map((d) => d.address)]).toEqual([0, [NVME]]);
  });

  test('alone in a domain it is taken with what it makes, which is gone by then and hinders nobody', () => {
    const h = vmd();
    expect(hook(h, VMD)).toMatchObject({ exit: 0 });
    const bind = h.run('-j', 'bind', '-n', VMD);
    expect([bind.exit, texts(bind.json.warnings).filter((w) => w.includes('not viable'))]).toEqual([0, []]);
  });

  test('for a device that it does not make it is a peer, and takes what it makes with it', () => {
    const h = vmd('vmd', [{ address: BESIDE, ids: '8086:1521', group: 9, driver: 'vfio-pci', vfio: true }]);
    h.remove(`sys/bus/pci/devices/${NVME}/driver`);
    const r = hook(h, BESIDE);
    expect(r.json.error.hint).toMatch(/^Add to the domain, whereby the host loses nvme0n1: <hostdev .*slot='0x0e'/);
  });
});

describe('what the host would lose with a peer', () => {
  const GPU = '0000:01:00.0';
  const NIC = '0000:01:00.1';
  const host = (more: Tree['files'] = {}): StaticHost =>
    root({
      devices: [
        { address: GPU, ids: '10de:2204', class: '030000', group: 1, driver: 'vfio-pci', vfio: true },
        { address: NIC, ids: '8086:1521', group: 1, driver: 'igb' },
      ],
      net: { eth7: NIC },
      files: more,
    });
  const vital = (): StaticHost => host({ 'proc/net/route': ROUTE + route('eth7', DEFAULT, DEFAULT) });

  test('hook, domain check, domain plan and group why say the same', () => {
    const h = vital();
    const lost = 'the host loses eth7: eth7 has the default route';
    expect(hook(h, GPU).json.error.hint).toMatch(new RegExp(`^Add to the domain, whereby ${lost}: <hostdev`));
    expect(groupFix(h, GPU)).toContain(`whereby ${lost}: <hostdev`);
    expect(on(h, ['domain', 'plan', '-', '--device', GPU], []).json.error.hint).toContain(
      '(the host loses with 0000:01:00.1 eth7: eth7 has the default route)',
    );
    expect(causes(h, GPU).find((c) => c.id === 'peer-driver')?.change).toContain(`hostdev bind ${NIC} (${lost})`);
  });

  test('an idle peer is taken by --unassigned-peers, and what goes with it is said', () => {
    const r = on(host(), ['domain', 'plan', '-', '--device', GPU, '--unassigned-peers'], []);
    expect(r.exit).toBe(0);
    expect(texts(r.json.warnings)).toContain(`${NIC}: the host loses eth7`);
  });

  test('a peer of which nothing has a name costs no words', () => {
    const h = host();
    h.remove('sys/class/net/eth7');
    expect(hook(h, GPU).json.error.hint).toMatch(/^Add to the domain: <hostdev/);
  });
});
