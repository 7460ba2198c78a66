/**
 * What the host stands on is not taken from it: not when it is wished, not when a wish is written by hand, not when it
 * came to be so later.
 */
import { expect, test } from 'vitest';
import { EVER } from '../../patience.ts';
import { drivers, type Told, told, useBed } from './suite.ts';

// A display, which the firmware's boot used: nothing else in these machines has one.
const bed = useBed('intel', { display: true });

const DISK = '0000:00:03.0';
const NIC = '0000:00:02.0';
const VGA = '0000:00:06.0';
const E1000E = '0000:23:00.0';

const of = (wishes: readonly Told[], address: string) => wishes.find((w) => w.wished_address === address);

test('refused when the wish is made', async () => {
  expect(await bed().vm.ok(`cat /sys/bus/pci/devices/${VGA}/boot_vga`)).toBe('1');
  const words: Record<string, RegExp> = { [DISK]: /mount|disk|\/dev\/vda/, [NIC]: /route|network/, [VGA]: /display/ };
  for (const [address, why] of Object.entries(words)) {
    const { code, stderr } = await bed().vm.sh(`hostdev wish add ${address}`, { timeoutMs: EVER });
    expect([address, code, stderr]).toEqual([address, 5, expect.stringMatching(why)]);
    expect((await bed().vm.sh(`hostdev bind ${address} --persist`, { timeoutMs: EVER })).code).toBe(5);
  }
  expect(await bed().vm.ok('ls /etc/hostdev/conf.d')).toBe('');
});

test('refused at the boot, all the rest goes on', async () => {
  await bed().vm.write(
    '/etc/hostdev/hostdev.toml',
    [DISK, NIC, VGA]
      .map((address) => {
        const slot = address.slice(8);
        return `[[device]]\naddress = "${address}"\npath = "pci0000:00/${slot}"\nvendor_id = "@${address}v@"\nproduct_id = "@${address}d@"\ndriver = "vfio"\n`;
      })
      .join('\n'),
  );
  await bed().vm.ok(
    `set -e
    for a in ${DISK} ${NIC} ${VGA}; do
      sed -i "s/@$a"v@/$(cut -c3- /sys/bus/pci/devices/$a/vendor)/ /etc/hostdev/hostdev.toml
      sed -i "s/@$a"d@/$(cut -c3- /sys/bus/pci/devices/$a/device)/ /etc/hostdev/hostdev.toml
    done
    hostdev wish add ${E1000E}
    sync`,
    { timeoutMs: EVER },
  );
  expect((await bed().vm.sh('hostdev wish check', { timeoutMs: EVER })).code).toBe(3);
  await bed().reboot();
  const wishes = await told(bed());
  expect(await drivers(bed(), [DISK, NIC, VGA, E1000E])).toEqual({
    [DISK]: 'virtio-pci',
    [NIC]: 'virtio-pci',
    [VGA]: '-',
    [E1000E]: 'vfio-pci',
  });
  for (const address of [DISK, NIC, VGA]) expect(of(wishes, address)).toMatchObject({ met: false, address });
  expect(of(wishes, E1000E)).toMatchObject({ met: true });
  expect(await bed().vm.ok('systemctl show -P Result hostdev-boot')).toBe('success');
});

test('a NIC that the default route came to stand on later', async () => {
  // Nothing is wired to it: the route is what counts. It is set before hostdev's unit, as a host's network is.
  await bed().vm.ok(
    `set -e
    rm /etc/hostdev/hostdev.toml
    cat > /etc/systemd/system/later.service << 'C'
[Unit]
Before=hostdev-boot.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'n=$$(ls /sys/bus/pci/devices/${E1000E}/net); ip link set $$n up; ip addr add 192.0.2.2/24 dev $$n; ip route add default via 192.0.2.1 dev $$n metric 5 onlink'
[Install]
WantedBy=multi-user.target
C
    systemctl enable later; sync`,
  );
  await bed().reboot();
  expect(await bed().vm.ok('ip route show default')).toContain('192.0.2.1');
  const wishes = await told(bed());
  expect(of(wishes, E1000E)).toMatchObject({ met: false, reason: expect.stringMatching(/default route/) });
  expect(await drivers(bed(), [E1000E])).toEqual({ [E1000E]: 'e1000e' });
});

test('hostdev.off=1, typed in the menu: nothing is done, and that is said', async () => {
  await bed().vm.ok('systemctl disable later; sync');
  await bed().reboot({ words: 'hostdev.off=1' });
  expect(await drivers(bed(), [E1000E])).toEqual({ [E1000E]: 'e1000e' });
  const wishes = await told(bed());
  expect(of(wishes, E1000E)).toMatchObject({ met: false, reason: expect.stringContaining('hostdev.off=1') });
  await bed().reboot({ words: '' });
  expect(await drivers(bed(), [E1000E])).toEqual({ [E1000E]: 'vfio-pci' });
});
