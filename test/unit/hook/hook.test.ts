import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { bindDevices } from '../../../src/actions/bind.ts';
import { NOT_ASKED } from '../../../src/actions/inGuest.ts';
import { readStatus } from '../../../src/actions/status.ts';
import { unbindDevices } from '../../../src/actions/unbind.ts';
import { readBinding } from '../../../src/binding/books.ts';
import { readJournal } from '../../../src/binding/journal.ts';
import { runHook } from '../../../src/hook/run.ts';
import { domainXml, type SimulatedHost, simulatedHost, UUID_A, UUID_B, type XmlDevice } from '../../mock/hosts.ts';
import { EVER } from '../../patience.ts';

const VF = '0000:21:10.0';
const NONE = { allowed: new Set<never>(), deadlineMs: EVER, lockedUuid: null };
const ADMIN = { allowed: new Set<never>(), deadlineMs: EVER, dryRun: false };

let sim: SimulatedHost;
beforeEach(() => {
  sim = simulatedHost();
});
afterEach(() => sim.remove());

const hook = (operation: string, uuid: string, devices: XmlDevice[], name = uuid === UUID_A ? 'a' : 'b') =>
  runHook(sim.host, { name, operation, xml: domainXml(name, uuid, devices) }, NONE);
/** libvirt's own state of a guest whose process is there. */
const running = (name: string): void => {
  sim.kernel.files.set(`run/libvirt/qemu/${name}.pid`, '4711');
  sim.kernel.files.set('proc/4711/comm', 'qemu\n');
};
const device = (address = VF) => sim.kernel.devices.get(address);
const state = (address = VF) => ({ driver: device(address)?.driver, override: device(address)?.override });
const HOST = { driver: 'igbvf', override: null };
const VARIANT = { driver: 'tb_igbvf_vfio_pci', override: 'tb_igbvf_vfio_pci' };

describe("managed='no'", () => {
  test('prepare binds to the variant driver, release gives back with the earlier override', async () => {
    const d = device();
    if (d) d.override = 'igbvf';
    await hook('prepare', UUID_A, [{ address: VF }]);
    expect(state()).toEqual(VARIANT);
    await hook('start', UUID_A, [{ address: VF }]);
    await hook('release', UUID_A, [{ address: VF }]);
    expect(state()).toEqual({ driver: 'igbvf', override: 'igbvf' });
    expect(readBinding(sim.host, VF)).toBeNull();
    expect(readJournal(sim.host).entries).toEqual([]);
  });

  test('a driverless device stays driverless after release', async () => {
    const d = device('0000:22:00.0');
    if (d) d.driver = null;
    await hook('prepare', UUID_A, [{ address: '0000:22:00.0' }]);
    expect(state('0000:22:00.0').driver).toBe('vfio-pci');
    await hook('release', UUID_A, []);
    expect(state('0000:22:00.0')).toEqual({ driver: null, override: null });
  });

  test('the model of the XML wins over the variant', async () => {
    await hook('prepare', UUID_A, [{ address: VF, model: 'vfio-pci' }]);
    expect(state().driver).toBe('vfio-pci');
  });

  test('what was on VFIO before is left alone and never given back', async () => {
    await bindDevices(sim.host, [VF], 'vfio-pci', ADMIN);
    await hook('prepare', UUID_A, [{ address: VF }]);
    await hook('release', UUID_A, [{ address: VF }]);
    expect(state().driver).toBe('vfio-pci');
    await unbindDevices(sim.host, [VF], false, ADMIN);
    expect(state()).toEqual(HOST);
  });

  test('prepare twice, release twice, release without prepare', async () => {
    await hook('release', UUID_A, [{ address: VF }]);
    expect(state()).toEqual(HOST);
    await hook('prepare', UUID_A, [{ address: VF }]);
    await hook('prepare', UUID_A, [{ address: VF }]);
    expect(readBinding(sim.host, VF)?.holds).toHaveLength(1);
    await hook('release', UUID_A, [{ address: VF }]);
    await hook('release', UUID_A, [{ address: VF }]);
    expect(state()).toEqual(HOST);
  });

  test('unplugged from A, given to B, A stopped: B keeps it, B gives it back', async () => {
    await hook('prepare', UUID_A, [{ address: VF }]);
    await hook('started', UUID_A, [{ address: VF }]);
    running('a');
    await hook('prepare', UUID_B, [{ address: VF }]);
    await hook('release', UUID_A, []);
    expect(state()).toEqual(VARIANT);
    expect(readBinding(sim.host, VF)?.holds.map((h) => h.owner)).toEqual([`domain:${UUID_B}`]);
    await hook('release', UUID_B, [{ address: VF }]);
    expect(state()).toEqual(HOST);
  });

  test('hot-plugged into B without a hook: kept while B holds it, given back when B ends', async () => {
    await hook('prepare', UUID_A, [{ address: VF }]);
    sim.kernel.openBy = [{ pid: 7, command: 'qemu-b', path: '/dev/vfio/11' }];
    await hook('release', UUID_A, [{ address: VF }]);
    expect(state()).toEqual(VARIANT);
    const status = await readStatus(sim.host, NOT_ASKED);
    expect(status.bindings[0]?.drift).toContain('qemu-b');
    sim.kernel.openBy = [];
    await hook('release', UUID_B, [{ address: VF }]);
    expect(state()).toEqual(HOST);
  });

  test('B is refused while A holds it, with domain and process named', async () => {
    await hook('prepare', UUID_A, [{ address: VF }]);
    sim.kernel.openBy = [{ pid: 7, command: 'qemu-a', path: '/dev/vfio/11' }];
    await expect(hook('prepare', UUID_B, [{ address: VF }])).rejects.toThrow(/domain a .*process 7 \(qemu-a\)/);
    await hook('release', UUID_B, [{ address: VF }]);
    expect(state()).toEqual(VARIANT);
  });

  test('B is refused while A is just starting, and its failed start takes nothing from A', async () => {
    await hook('prepare', UUID_A, [{ address: VF }]);
    for (const managed of ['no', 'yes'] as const)
      await expect(hook('prepare', UUID_B, [{ address: VF, managed }])).rejects.toMatchObject({
        code: 'HOSTDEV_IN_USE',
        message: `${VF}: it belongs to domain a (${UUID_A}), which is starting`,
      });
    await hook('release', UUID_B, [{ address: VF }]);
    expect(state()).toEqual(VARIANT);
    await hook('release', UUID_A, [{ address: VF }]);
    expect(state()).toEqual(HOST);
  });

  test('somebody else changed it meanwhile: it is left and said', async () => {
    await hook('prepare', UUID_A, [{ address: VF }]);
    const d = device();
    if (d) Object.assign(d, { driver: 'pcieport', override: 'pcieport' });
    await hook('release', UUID_A, [{ address: VF }]);
    expect(state().driver).toBe('pcieport');
    expect((await readStatus(sim.host, NOT_ASKED)).bindings[0]?.drift).toContain('somebody else');
  });
});

describe("managed='yes'", () => {
  const devices: XmlDevice[] = [{ address: VF, managed: 'yes' }];
  const libvirtBinds = (): void => {
    sim.kernel.loadModule('tb_igbvf_vfio_pci');
    Object.assign(device() ?? {}, VARIANT);
  };

  test('prepare writes nothing; release restores the override that libvirt cleared', async () => {
    const d = device();
    if (d) d.override = 'igbvf';
    await hook('prepare', UUID_A, devices);
    expect(sim.kernel.writes).toEqual([]);
    libvirtBinds();
    await hook('start', UUID_A, devices);
    Object.assign(d ?? {}, HOST); // libvirt re-attached
    await hook('release', UUID_A, devices);
    expect(state()).toEqual({ driver: 'igbvf', override: 'igbvf' });
  });

  test("release brings back what libvirt's own list kept on the variant driver", async () => {
    await hook('prepare', UUID_A, devices);
    libvirtBinds();
    await hook('release', UUID_A, devices);
    expect(state()).toEqual(HOST);
  });

  test('no -> stop -> yes -> stop -> no', async () => {
    await hook('prepare', UUID_A, [{ address: VF }]);
    await hook('release', UUID_A, [{ address: VF }]);
    await hook('prepare', UUID_A, devices);
    libvirtBinds();
    await hook('release', UUID_A, devices);
    expect(state()).toEqual(HOST);
    await hook('prepare', UUID_A, [{ address: VF }]);
    expect(state()).toEqual(VARIANT);
    await hook('release', UUID_A, [{ address: VF }]);
    expect(state()).toEqual(HOST);
  });
});

describe('refusals leave everything as it was', () => {
  test('a peer on a host driver: named, with its driver and the XML to add', async () => {
    const refused = await hook('prepare', UUID_A, [{ address: '0000:26:01.0' }]).catch((e) => e);
    expect(refused.code).toBe('HOSTDEV_GROUP_NOT_VIABLE');
    expect(refused.message).toContain('0000:26:02.0 is on the host driver e1000');
    expect(refused.hint).toContain(
      "<address domain='0x0000' bus='0x26' slot='0x02' function='0x0'/></source><address type='unassigned'/>",
    );
    expect(sim.kernel.writes).toEqual([]);
  });

  test('the same peer listed as unassigned is bound too', async () => {
    const devices = [{ address: '0000:26:01.0' }, { address: '0000:26:02.0', unassigned: true }];
    await hook('prepare', UUID_A, devices);
    expect(state('0000:26:02.0').driver).toBe('vfio-pci');
    await hook('release', UUID_A, devices);
    expect(state('0000:26:02.0')).toEqual({ driver: 'e1000', override: null });
  });

  test('a device that is not there', async () => {
    await expect(hook('prepare', UUID_A, [{ address: VF }, { address: '0000:77:00.0' }])).rejects.toMatchObject({
      code: 'HOSTDEV_DEVICE_ABSENT',
    });
    expect(sim.kernel.writes).toEqual([]);
  });

  test('the second device fails: the first is back', async () => {
    sim.kernel.fault = (path, value) => (path.endsWith('drivers_probe') && value === '0000:21:10.2' ? 'silent' : null);
    await expect(hook('prepare', UUID_A, [{ address: VF }, { address: '0000:21:10.2' }])).rejects.toMatchObject({
      code: 'HOSTDEV_UNDO_INCOMPLETE',
    });
    sim.kernel.fault = () => null;
    expect(state()).toEqual(HOST);
    // The fault also hit the way back; the next hook for this device puts it right.
    await hook('prepare', UUID_A, [{ address: '0000:21:10.2' }]);
    await hook('release', UUID_A, []);
    expect(state('0000:21:10.2')).toEqual(HOST);
    expect(readJournal(sim.host).entries).toEqual([]);
  });
});

test('operations of no interest and domains without devices touch nothing', async () => {
  for (const op of ['stopped', 'reconnect', 'migrate', 'restore', 'attach', 'new-in-libvirt-13'])
    await hook(op, UUID_A, [{ address: VF }]);
  await hook('prepare', UUID_A, []);
  expect(sim.kernel.writes).toEqual([]);
});
