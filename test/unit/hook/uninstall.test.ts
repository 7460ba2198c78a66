/** Before the program goes: a journal that may not be read is none that is empty. */
import { expect, test, vi } from 'vitest';
import type * as Status from '../../../src/actions/status.ts';
import { uninstall } from '../../../src/actions/uninstall.ts';
import { simulatedHost } from '../../mock/hosts.ts';

vi.mock('../../../src/actions/status.ts', async (original) => ({
  ...(await original<typeof Status>()),
  readStatus: async () => ({ bindings: [], journal: null, bad_files: [] }),
}));

test('it refuses, and says as whom to run it', async () => {
  const sim = simulatedHost();
  try {
    const gone = uninstall(sim.host, { node: '/usr/bin/node', cli: '/usr/bin/hostdev' } as never, false);
    await expect(gone).rejects.toMatchObject({
      code: 'HOSTDEV_IN_USE',
      message: expect.stringContaining('what the journal holds is not known: it may not be read'),
      hint: expect.stringContaining('run it as root'),
    });
  } finally {
    sim.remove();
  }
});
