/**
 * What a way back takes with it is said before, in a dry run too: VFs of a PF, and a device that nobody would claim.
 */

import { afterEach, describe, expect, test } from 'vitest';
import { bindDevices } from '../../../src/actions/bind.ts';
import { NOT_ASKED } from '../../../src/actions/inGuest.ts';
import { fixStatus } from '../../../src/actions/statusFix.ts';
import { unbindDevices } from '../../../src/actions/unbind.ts';
import { ADMIN, ALLOW, create, PF, pf, sim, VF } from '../../mock/pf.ts';
import { StaticHost } from '../../mock/tree.ts';

const dry = { ...ALLOW, dryRun: true };

describe('a PF with VFs', () => {
  test('unbind --to-host: whose VFs go, and that their settings do', async () => {
    await create(2, 'netdev');
    await bindDevices(sim.host, [VF], null, ADMIN);
    // As with enable_sriov=1.
    Object.assign(pf(), { driver: 'vfio-pci', override: 'vfio-pci' });
    Object.assign(sim.kernel.drivers.get('vfio-pci') ?? {}, { sriov: true, loaded: true });
    for (const options of [dry, ALLOW]) {
      const { warnings } = await unbindDevices(sim.host, [PF], true, options);
      const going = warnings.filter((w) => w.id === 'lost-with-vfs').map((w) => w.text);
      expect(going[0]).toContain(`these bindings go with its VFs: ${VF} (admin)`);
      expect(going[1]).toContain('what is set on its VFs');
    }
    expect(pf().driver).toBe('igb');
  });

  test('status --fix of one that somebody took back and gave VFs', async () => {
    await bindDevices(sim.host, [PF], null, ADMIN);
    Object.assign(pf(), { driver: 'igb', override: null });
    sim.kernel.openWriter().write(`sys/bus/pci/devices/${PF}/sriov_numvfs`, '2', 1000);
    for (const [options, is] of [
      [dry, 'would be on vfio-pci again'],
      [ALLOW, 'is on vfio-pci again'],
    ] as const) {
      const [mended] = await fixStatus(sim.host, options, NOT_ASKED);
      expect(mended?.text).toContain(`${PF} ${is}; ${PF}: what is set on its VFs`);
    }
  });
});

describe('a device that no host driver claims', () => {
  let host: StaticHost | null = null;
  afterEach(() => host?.remove());
  const start = (aliases: string[]): StaticHost => {
    host = new StaticHost({
      devices: [
        {
          address: '0000:04:00.0',
          ids: '1002:67df',
          class: '030000',
          group: 4,
          driver: 'vfio-pci',
          vfio: true,
          attributes: { driver_override: 'vfio-pci\n' },
        },
      ],
      drivers: { 'vfio-pci': 'vfio_pci' },
      aliases,
    });
    return host;
  };
  const OTHER = 'alias pci:v00008086d000010C9sv*sd*bc*sc*i* igb';
  const warned = (h: StaticHost): unknown[] =>
    ((h.run('-j', '-n', 'unbind', '--to-host', '0000:04:00.0').json.warnings ?? []) as { id: string }[])
      .map((w) => w.id)
      .filter((id) => id === 'no-host-driver');

  test('unbind --to-host -n says so, as the real run does', () => {
    expect(warned(start([OTHER]))).toEqual(['no-host-driver']);
  });

  test('one that a driver claims, or two, or where the list has no host driver at all: nothing is said', () => {
    for (const aliases of [
      [OTHER, 'alias pci:v00001002d000067DFsv*sd*bc03sc*i* amdgpu'],
      [OTHER, 'alias pci:v00001002d000067DFsv*sd*bc03sc*i* amdgpu', 'alias pci:v00001002d*sv*sd*bc03sc*i* radeon'],
      [],
    ]) {
      expect(warned(start(aliases))).toEqual([]);
      host?.remove();
    }
    host = null;
  });
});
