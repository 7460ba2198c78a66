/** `wish list` says what is so now, `wish check` what a boot would make of it: each table answers its own question. */
import { expect, test } from 'vitest';
import { StaticHost } from '../../mock/tree.ts';

const NIC = '0000:03:00.0';

test('a wish that is not met now and would be at boot: no in the list, yes in the check', () => {
  const host = new StaticHost({
    devices: [{ address: NIC, ids: '8086:100e', group: 4, driver: 'e1000' }],
    drivers: { 'vfio-pci': 'vfio_pci' },
  });
  expect(host.run('wish', 'add', NIC).exit).toBe(0);
  const row = (...words: string[]): RegExp => new RegExp(words.join('\\s+'));
  const listed = host.run('wish', 'list');
  expect(listed).toMatchObject({ exit: 0, out: expect.stringMatching(row('MET', 'WHERE', 'WHY NOT\n')) });
  expect(listed.out).toMatch(row(NIC, 'vfio', 'no', '.*toml:\\d+', 'is on e1000'));
  const checked = host.run('wish', 'check');
  expect(checked).toMatchObject({ exit: 0, out: expect.stringMatching(row('AT BOOT', 'WHERE', 'WHY NOT\n')) });
  expect(checked.out).toMatch(row(NIC, 'vfio', 'yes', '.*toml:\\d+\n'));
  host.remove();
});
