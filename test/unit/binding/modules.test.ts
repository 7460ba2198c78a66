/** A dry run finds out whether a module is to be had without loading it, and says what the real run would. */
import { expect, test } from 'vitest';
import { loadNative } from '../../../src/addon/load.ts';
import { loadedDriver, namedDriver, refuseUnloadable } from '../../../src/binding/drivers/modules.ts';
import { Host } from '../../../src/host/host.ts';
import { Deadline } from '../../../src/store/locks.ts';
import { StaticHost } from '../../mock/tree.ts';

const failure = (p: Promise<unknown>): Promise<unknown> =>
  p.then(
    () => 'it is to be had',
    (e: Error & { code?: string }) => [e.code, e.message],
  );

test.each(['the machine itself', 'another root'])('a module that is nowhere: on %s both say the same', async (what) => {
  const tree = new StaticHost({ devices: [], drivers: { 'vfio-pci': 'vfio_pci' } });
  try {
    const host = new Host(what === 'another root' ? tree.root : '/', loadNative());
    const wanted = namedDriver(host, 'hostdev_no_such_vfio_pci');
    const dry = await failure(refuseUnloadable(host, wanted, new Deadline(10_000)));
    expect(dry).toEqual(['HOSTDEV_MODULE', expect.any(String)]);
    expect(dry).toEqual(await failure(loadedDriver(host, wanted, new Deadline(10_000))));
  } finally {
    tree.remove();
  }
});

test('a driver that is there is asked for nothing', async () => {
  const tree = new StaticHost({ devices: [], drivers: { 'vfio-pci': 'vfio_pci' } });
  try {
    const host = new Host(tree.root, loadNative());
    await expect(refuseUnloadable(host, namedDriver(host, 'vfio_pci'), new Deadline(0))).resolves.toBeUndefined();
  } finally {
    tree.remove();
  }
});
