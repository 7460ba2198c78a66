/** A guest starts through hostdev on a real kernel: the whole path, and what must not happen beside it. */
import { beforeAll, describe, expect, test } from 'vitest';
import {
  addressXml,
  createVfs,
  type DomainXml,
  defineDomain,
  domainXml,
  driverOf,
  hostdevXml,
  installHostdev,
  onlineNvmeVf,
  overrideOf,
  virsh,
} from './guest.ts';
import { skipped, useMachine } from './suite.ts';

const vm = useMachine('intel');

const IGB = '0000:21:00.0';
const VF = '0000:21:10.0';
const VF2 = '0000:21:10.2';
const NVME = '0000:22:00.0';

/** Waits for what goes on after libvirt was answered: a release, above all. */
async function eventually(look: () => Promise<unknown>, wanted: unknown): Promise<void> {
  for (const until = Date.now() + 60_000; Date.now() < until; ) if ((await look()) === wanted) return;
  expect(await look()).toBe(wanted);
}

const host = (address: string) => driverOf(vm(), address);
const setOverride = (address: string, text: string) =>
  vm().ok(`printf '%s\\n' '${text}' > /sys/bus/pci/devices/${address}/driver_override`);
const hookLog = () => vm().ok('cat /run/hostdev/hook.log 2>/dev/null || :');

/** The VFIO group and device nodes that a guest's QEMU has open. */
const qemuHolds = (name: string) =>
  vm().ok(`ls -l /proc/$(pgrep -f guest=${name},)/fd | grep -o '/dev/vfio/[0-9]*' || :`);
const groupOf = (address: string) => vm().ok(`basename "$(readlink /sys/bus/pci/devices/${address}/iommu_group)"`);

async function startOk(name: string): Promise<void> {
  const r = await virsh(vm(), ['start', name], { timeoutMs: 120_000 });
  if (r.code !== 0) throw new Error(`virsh start ${name}: ${r.stderr}\n${await hookLog()}`);
}

async function stop(name: string): Promise<void> {
  const r = await virsh(vm(), ['destroy', name], { timeoutMs: 120_000 });
  expect(r.stderr, r.stderr).toBe('');
}

/**
 * Hot-unplugs a device that was there at start. A guest's system would answer by switching the slot's power off; there
 * is none, so the monitor does it for it, by the root port's Slot Control register (offset 0x18 of its PCI Express
 * capability, which QEMU puts at 0x54).
 */
async function unplug(name: string, file: string): Promise<void> {
  const xml = await vm().ok(`virsh dumpxml ${name}`);
  const hostdev = /<hostdev.*?<\/hostdev>/s.exec(xml)?.[0] ?? '';
  const bus = Number(/<address type='pci' domain='\w+' bus='(\w+)'/.exec(hostdev)?.[1]);
  const port = new RegExp(`<controller type='pci' index='${bus}'.*?slot='(\\w+)' function='(\\w+)'`, 's').exec(xml);
  const address = (0x80000000 + (Number(port?.[1]) << 11) + (Number(port?.[2]) << 8) + 0x54 + 0x18).toString(16);
  const monitor = (command: string) => vm().ok(`virsh qemu-monitor-command ${name} --hmp '${command}'`);
  await vm().ok(`virsh detach-device ${name} ${file} --live`);
  await monitor(`o/w 0xcf8 0x${address}`);
  await monitor('o/h 0xcfc 0x0700');
}

/** Books and journal are empty: nothing was forgotten. */
async function expectClean(): Promise<void> {
  await eventually(() => vm().ok('ls /run/hostdev/bindings /run/hostdev/journal 2>/dev/null | grep -c json || :'), '0');
}

const one = (name: string, address: string, managed: boolean, more: Partial<DomainXml> = {}): DomainXml => ({
  name,
  hostdevs: [{ address, managed }],
  ...more,
});

beforeAll(async () => {
  if (skipped) return;
  await installHostdev(vm());
  await createVfs(vm(), IGB, 4);
  await eventually(() => host(VF), 'igbvf');
  await eventually(() => host(VF2), 'igbvf');
});

describe('before the hook is installed', () => {
  test("libvirt refuses a managed='no' VF on its host driver", async () => {
    await defineDomain(vm(), one('plain', VF, false));
    const r = await virsh(vm(), ['start', 'plain']);
    expect(r.code).not.toBe(0);
    expect(r.stderr).toContain('must be manually detached');
  });

  test('hook install puts one executable file there and says that libvirt must be restarted', async () => {
    const r = await vm().sh('hostdev hook install');
    expect(r.code, r.stderr).toBe(0);
    expect(r.stderr).toContain('systemctl restart libvirtd');
    expect(await vm().ok('stat -c %F:%a /etc/libvirt/hooks/qemu.d/90-hostdev')).toBe('regular file:755');
    // Under emulation node alone takes seconds to start.
    await vm().ok(
      "sed -i 's/^start_deadline=.*/start_deadline=60/; s/^prepare_deadline=.*/prepare_deadline=120/' /etc/libvirt/hooks/hostdev.conf",
    );
    await vm().ok('systemctl restart libvirtd && hostdev hook status');
  });
});

describe('a guest', () => {
  test("with a managed='no' VF starts on the variant driver, and the VF comes back with its earlier override", async () => {
    await setOverride(VF, 'igbvf');
    await startOk('plain');
    expect(await host(VF)).toBe('tb_igbvf_vfio_pci');
    expect(await qemuHolds('plain')).toContain(`/dev/vfio/${await groupOf(VF)}`);
    const list = JSON.parse(await vm().ok('hostdev status -j'));
    expect(list.bindings).toMatchObject([
      { address: VF, driver: 'tb_igbvf_vfio_pci', before: { driver: 'igbvf', override: 'igbvf' }, drift: null },
    ]);
    await stop('plain');
    await eventually(() => host(VF), 'igbvf');
    expect(await overrideOf(vm(), VF)).toBe('igbvf');
    await setOverride(VF, '');
    await expectClean();
  });

  test("with a managed='yes' VF: the override that libvirt clears is back after it", async () => {
    await setOverride(VF, 'igbvf');
    await defineDomain(vm(), one('managed', VF, true));
    await startOk('managed');
    expect(await host(VF)).toBe('tb_igbvf_vfio_pci');
    expect(await qemuHolds('managed')).toContain(`/dev/vfio/${await groupOf(VF)}`);
    await stop('managed');
    await eventually(() => overrideOf(vm(), VF), 'igbvf');
    expect(await host(VF)).toBe('igbvf');
    await setOverride(VF, '');
    await expectClean();
  });

  test('no, stop, yes, stop, no on one libvirtd', async () => {
    await defineDomain(vm(), one('n1', VF, false));
    await defineDomain(vm(), one('y1', VF, true));
    for (const name of ['n1', 'y1', 'n1']) {
      await startOk(name);
      expect(await host(VF), name).toBe('tb_igbvf_vfio_pci');
      await stop(name);
      await eventually(() => host(VF), 'igbvf');
      expect(await overrideOf(vm(), VF), name).toBeNull();
      await expectClean();
    }
  });

  test('with an NVMe VF that the host uses, as hostdev and as NVMe disk', async () => {
    await createVfs(vm(), NVME, 2, { autoprobe: false });
    const { address } = await onlineNvmeVf(vm(), NVME, 0, { namespace: 2 });
    await defineDomain(vm(), one('nv', address, false));
    await startOk('nv');
    expect(await host(address)).toBe('tb_nvme_vfio_pci');
    await stop('nv');
    await eventually(() => host(address), 'nvme');
    expect(await overrideOf(vm(), address)).toBeNull();

    await defineDomain(vm(), { name: 'nvdisk', nvmeDisks: [{ address, managed: false, namespace: 2 }] });
    const started = await virsh(vm(), ['start', 'nvdisk'], { timeoutMs: 120_000 });
    // QEMU's own NVMe driver may refuse the emulated VF; the hook's part is the same either way.
    expect(started.stderr).not.toContain('hostdev:');
    if (started.code === 0) await stop('nvdisk');
    await eventually(() => host(address), 'nvme');
    await expectClean();
  });

  test('with a driverless NVMe VF: driverless again afterwards', async () => {
    const [, offline = ''] = (
      await vm().ok(`for l in /sys/bus/pci/devices/${NVME}/virtfn*; do basename "$(readlink $l)"; done`)
    ).split('\n');
    expect(await host(offline)).toBeNull();
    await defineDomain(vm(), one('off', offline, false));
    await startOk('off');
    expect(await host(offline)).toBe('tb_nvme_vfio_pci');
    await stop('off');
    await eventually(() => host(offline), null);
    expect(await overrideOf(vm(), offline)).toBeNull();
    await expectClean();
  });

  test('A has it, hot-unplugged, given to B, A stopped: B keeps it', async () => {
    await defineDomain(vm(), one('ga', VF2, false));
    await defineDomain(vm(), one('gb', VF2, false));
    await startOk('ga');
    await vm().write('/tmp/vf2.xml', hostdevXml({ address: VF2, managed: false }));
    await unplug('ga', '/tmp/vf2.xml');
    await eventually(() => qemuHolds('ga'), '');
    await startOk('gb');
    await stop('ga');
    const group = await groupOf(VF2);
    await vm().ok('sleep 8'); // A's release goes on after libvirt was answered
    expect(await host(VF2)).toBe('tb_igbvf_vfio_pci');
    expect(await qemuHolds('gb')).toContain(`/dev/vfio/${group}`);
    expect(await vm().ok('virsh domstate gb')).toBe('running');
    await stop('gb');
    await eventually(() => host(VF2), 'igbvf');
    await expectClean();
  });
});

test("a network's pool of VFs: no device at prepare, checked at start", async () => {
  await vm().write(
    '/tmp/pool.xml',
    `<network><name>pool</name><forward mode='hostdev' managed='yes'>${addressXml('0000:21:10.4', " type='pci'")}</forward></network>`,
  );
  await vm().ok(
    `ip link set $(ls /sys/bus/pci/devices/${IGB}/net) up && virsh net-define /tmp/pool.xml && virsh net-start pool`,
  );
  const pooled = domainXml({ name: 'pooled' }).replace(
    '<memballoon',
    "<interface type='network'><source network='pool'/></interface><memballoon",
  );
  await vm().write('/tmp/pooled.xml', pooled);
  await vm().ok('virsh define /tmp/pooled.xml');
  await startOk('pooled');
  const calls = (await hookLog())
    .split('\n')
    .map((l) => JSON.parse(l))
    .filter((l) => l.domain === 'pooled');
  expect(calls).toMatchObject([{ operation: 'start', checked: ['0000:21:10.4'] }]);
  await stop('pooled');
  await eventually(() => host('0000:21:10.4'), 'igbvf');
  await expectClean();
});

describe('refusals', () => {
  test('a peer on a host driver: peer, driver and the XML to add are in the error of virsh', async () => {
    // The bridge's own driver blocks the group too; that is another line of the same error.
    await defineDomain(vm(), one('peer', '0000:26:01.0', false));
    const r = await virsh(vm(), ['start', 'peer']);
    expect(r.code).not.toBe(0);
    expect(r.stderr).toContain('0000:26:02.0 is on the host driver e1000');
    expect(r.stderr).toContain('0000:25:00.0 is a bridge, bound to shpchp');
    expect(r.stderr).toContain(
      "<source><address domain='0x0000' bus='0x26' slot='0x02' function='0x0'/></source><address type='unassigned'/>",
    );
    expect(await host('0000:26:02.0')).toBe('e1000');
    expect(await host('0000:26:01.0')).toBeNull();

    await vm().ok('echo 0000:25:00.0 > /sys/bus/pci/drivers/shpchp/unbind');
    await defineDomain(vm(), {
      name: 'peer2',
      hostdevs: [
        { address: '0000:26:01.0', managed: false },
        { address: '0000:26:02.0', managed: false, unassigned: true },
      ],
    });
    await startOk('peer2');
    await stop('peer2');
    await eventually(() => host('0000:26:02.0'), 'e1000');
    await expectClean();
  });

  test('bind and unbind by hand, and what they refuse', async () => {
    await vm().ok(`hostdev bind ${VF}`);
    expect(await host(VF)).toBe('tb_igbvf_vfio_pci');
    await vm().ok(`hostdev unbind ${VF}`);
    expect(await host(VF)).toBe('igbvf');
    expect((await vm().sh(`hostdev unbind ${VF}`)).code).toBe(4);
    expect((await vm().sh('hostdev bind 0000:25:00.0')).code).toBe(5);
    expect((await vm().sh(`hostdev bind ${IGB}`)).code).toBe(5); // it has VFs
    expect((await vm().sh('hostdev bind 0000:00:02.0')).code).toBe(5); // the way in
    const disk = await vm().sh('hostdev bind 0000:00:03.0');
    expect(disk.code).toBe(5);
    expect(disk.stderr).toContain('mounted on /');
    expect((await vm().sh('hostdev bind 0000:77:00.0')).code).toBe(4);
    await expectClean();
  });
});

describe('node is gone', () => {
  test('the running guest lives through a restart of libvirtd, a guest without host devices starts, one with them is told why not', async () => {
    await defineDomain(vm(), { name: 'bare' });
    await startOk('plain');
    await vm().ok('mv /usr/bin/node /usr/bin/node.gone && systemctl restart libvirtd');
    try {
      await eventually(() => vm().ok('virsh domstate plain'), 'running');
      await startOk('bare');
      await stop('bare');
      const r = await virsh(vm(), ['start', 'managed']);
      expect(r.code).not.toBe(0);
      expect(r.stderr).toContain('/usr/bin/node');
      expect(await vm().ok('virsh domstate plain')).toBe('running');
    } finally {
      await vm().ok('mv /usr/bin/node.gone /usr/bin/node');
    }
    await stop('plain');
    await eventually(() => host(VF), 'igbvf');
  });
});

describe('what it shows is what is there', () => {
  type Listed = Record<string, string | number | null>;

  test('list agrees with /sys, lspci and virsh nodedev-dumpxml for every device', async () => {
    const { devices } = JSON.parse(await vm().ok('hostdev list -j')) as { devices: Listed[] };
    const sys = await vm().ok(`cd /sys/bus/pci/devices; for d in *; do
      read v < $d/vendor; read p < $d/device; read c < $d/class; read sv < $d/subsystem_vendor; read sd < $d/subsystem_device; read n < $d/numa_node
      drv=$(readlink $d/driver); grp=$(readlink $d/iommu_group); pf=$(readlink $d/physfn); t=; num=; [ ! -e $d/sriov_totalvfs ] || { read t < $d/sriov_totalvfs; read num < $d/sriov_numvfs; }
      echo "$d|\${v#0x}|\${p#0x}|\${c#0x}|\${sv#0x}|\${sd#0x}|$n|\${drv##*/}|\${grp##*/}|\${pf##*/}|$t|$num"; done`);
    const line = (d: Listed) =>
      [
        d.address,
        d.vendor_id,
        d.product_id,
        d.class,
        d.subsystem_vendor_id,
        d.subsystem_device_id,
        d.numa_node ?? -1,
        d.driver ?? '',
        d.iommu_group ?? '',
        d.parent_addr ?? '',
        d.sriov_totalvfs ?? '',
        d.sriov_numvfs ?? '',
      ].join('|');
    expect(devices.map(line)).toEqual(sys.split('\n'));

    const lspci = await vm().ok('lspci -Dnk');
    const records = lspci.split(/\n(?=\S)/).map((r) => ({
      head: /^(\S+) ([0-9a-f]{4}): ([0-9a-f]{4}):([0-9a-f]{4})/.exec(r) ?? [],
      driver: /Kernel driver in use: (\S+)/.exec(r)?.[1] ?? null,
    }));
    expect(devices.map((d) => [d.address, String(d.class).slice(0, 4), d.vendor_id, d.product_id, d.driver])).toEqual(
      records.map(({ head, driver }) => [head[1], head[2], head[3], head[4], driver]),
    );

    const xml = await vm().ok(
      "for n in $(virsh nodedev-list --cap pci); do virsh nodedev-dumpxml $n | tr -d '\\n'; echo; done",
      { timeoutMs: 170_000 },
    );
    const nodes = new Map(
      xml.split('\n').map((x) => [/<name>pci_(\w{4})_(\w\w)_(\w\w)_(\w)/.exec(x)?.slice(1).join(''), x]),
    );
    expect(nodes.size).toBe(devices.length);
    for (const d of devices) {
      const x = nodes.get(String(d.address).replace(/[:.]/g, '')) ?? '';
      const seen = {
        vendor: /<vendor id='0x(\w+)'/.exec(x)?.[1],
        product: /<product id='0x(\w+)'/.exec(x)?.[1],
        cls: /<class>0x(\w+)</.exec(x)?.[1],
        group: Number(/<iommuGroup number='(\d+)'/.exec(x)?.[1] ?? -1),
        driver: /<driver>\s*<name>([^<]+)/.exec(x)?.[1] ?? null,
        numa: Number(/<numa node='(\d+)'/.exec(x)?.[1] ?? -1),
        max: Number(/virt_functions' maxCount='(\d+)'/.exec(x)?.[1] ?? 0),
        vf: /<capability type='phys_function'/.test(x),
      };
      expect({ a: d.address, ...seen }).toEqual({
        a: d.address,
        vendor: d.vendor_id,
        product: d.product_id,
        cls: d.class,
        group: d.iommu_group ?? -1,
        driver: d.driver,
        numa: d.numa_node ?? -1,
        max: d.sriov_totalvfs ?? 0,
        vf: d.dev_type === 'type-VF',
      });
    }
  }, 240_000);

  test('group list agrees with /sys/kernel/iommu_groups, show with the attributes', async () => {
    const { groups } = JSON.parse(await vm().ok('hostdev group list -j')) as {
      groups: { id: number; type: string; devices: string[] }[];
    };
    const sys = await vm().ok(
      'cd /sys/kernel/iommu_groups; for g in $(ls | sort -n); do echo "$g|$(cat $g/type)|$(ls $g/devices | paste -sd " ")"; done',
    );
    expect(groups.map((g) => `${g.id}|${g.type}|${g.devices.join(' ')}`)).toEqual(sys.split('\n'));
  });

  test('show agrees with the attributes and with lspci for every device', async () => {
    // What libvirt does not say in time is a warning, on stderr.
    const shown = await vm().ok('ls /sys/bus/pci/devices | xargs -P2 -I{} hostdev show -j {} 2> /dev/null', {
      timeoutMs: 280_000,
    });
    const documents = shown.split('\n').map((l) => JSON.parse(l).device);
    expect(documents.length).toBe(Number(await vm().ok('ls /sys/bus/pci/devices | wc -l')));
    const attributes = await vm().ok(`cd /sys/bus/pci/devices; for d in *; do
      r=; [ ! -e $d/reset_method ] || read r < $d/reset_method; read o < $d/driver_override; b=; [ ! -e $d/boot_vga ] || read b < $d/boot_vga; echo "$d|$o|$r|$b"; done`);
    const line = (d: Record<string, unknown>) =>
      [
        d.address,
        d.driver_override ?? '(null)',
        (d.reset_methods as string[]).join(' '),
        d.boot_vga === null ? '' : Number(d.boot_vga),
      ].join('|');
    expect(documents.map(line).sort()).toEqual(attributes.split('\n').sort());
    const { devices } = JSON.parse(await vm().ok('hostdev list -j')) as { devices: Listed[] };
    for (const d of devices) expect(documents.find((x) => x.address === d.address)).toMatchObject(d);
    const names = new Map(
      (await vm().ok('lspci -D'))
        .split('\n')
        .map((l) => [l.split(' ')[0], l.replace(/^\S+ [^:]+: /, '').replace(/ \((rev|prog-if).*$/, '')]),
    );
    // What pci.ids knows nothing of, lspci calls "Device vvvv:dddd".
    for (const d of documents)
      expect(d.name ?? `Device ${d.vendor_id}:${d.product_id}`, d.address).toBe(names.get(d.address));
    const variant = JSON.parse(await vm().ok(`hostdev show -j ${VF}`)).device.variant_driver;
    expect(variant).toBe('tb_igbvf_vfio_pci');
  }, 300_000);
});
