/**
 * What could not be read of a group's other members is not taken for nothing, neither by the hook nor by its preview;
 * and no list that could not be read calls itself empty.
 */
import { expect, test } from 'vitest';
import { domainXml, UUID_A } from '../mock/hosts.ts';
import { describeSim, useSimHosts } from './simhost.ts';
import { A, B, D, WORLD } from './world.ts';

describeSim('not measured is not absent', () => {
  const sims = useSimHosts();

  test.each([B, `${B}/driver`, `${B}/iommu_group`])(
    'a peer of which %s cannot be read stops the guest',
    async (file) => {
      const sim = await sims.start(WORLD);
      const xml = domainXml('guest', UUID_A, [{ address: A, managed: 'yes' }]).toString();
      sim.ctl(
        `fault readlink sys/bus/pci/devices/${file} errno=EIO`,
        `fault open sys/bus/pci/devices/${file} errno=EIO`,
      );
      for (const words of [
        ['hook', 'test', '-'],
        ['hook', 'run', 'guest', 'prepare', 'begin', '-'],
      ]) {
        const { exit, err } = await sim.spawn(words, xml).ended;
        expect({ words, exit, err }).toMatchObject({ exit: 1, err: expect.stringMatching(/is not known: .*EIO/) });
      }
    },
  );

  test.each([[['list']], [['vf', 'list']], [['pool', 'list']]])(
    '%j says nothing of what it could not read',
    async (words) => {
      const sim = await sims.start(WORLD);
      sim.ctl('fault readdir sys/bus/pci/devices errno=EIO');
      expect(sim.run(...words)).toMatchObject({ exit: 1, out: '', err: expect.stringContaining('EIO') });
    },
  );

  test('a group whose members cannot be read is neither viable nor not', async () => {
    const sim = await sims.start(WORLD);
    sim.ctl('fault readdir sys/bus/pci/devices errno=EIO');
    const { groups } = sim.run('group', 'list', '-j').json;
    expect(groups.length).toBeGreaterThan(0);
    expect(groups.every((g) => g.viable === null)).toBe(true);
    const [first] = groups;
    expect(sim.run('group', 'show', `${first?.id}`)).toMatchObject({
      exit: 1,
      out: expect.stringContaining('not known'),
    });
  });

  test('status tells the books although the IOMMU cannot be asked', async () => {
    const sim = await sims.start(WORLD);
    expect(sim.run('bind', D).exit).toBe(0);
    sim.ctl('fault readdir sys/kernel/iommu_groups errno=EIO');
    const { exit, out, err } = sim.run('status');
    expect({ exit, out }).toMatchObject({ exit: 1, out: expect.stringContaining(D) });
    expect(out).toContain('IOMMU: not known');
    expect(err).toMatch(/iommu_groups.*EIO|EIO.*iommu_groups/);
  });
});
