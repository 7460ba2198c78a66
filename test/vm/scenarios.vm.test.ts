/** The shared scenarios on a real kernel: what the mock and the FUSE host claim is true, errno by errno. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, test } from 'vitest';
import { SCENARIOS } from '../scenarios/list.ts';
import { asked, describeStep, expected, type Outcome } from '../scenarios/step.ts';
import { installHostdev } from './guest.ts';
import { skipped, useMachine } from './suite.ts';

const vm = useMachine('intel');
const PERFORM = '/root/perform.mjs';

let outcomes: Outcome[][] = [];

beforeAll(async () => {
  if (skipped) return;
  await installHostdev(vm());
  await vm().ok('modprobe -a vfio-pci igbvf tb_igbvf_vfio_pci; udevadm settle');
  // udev binds fresh VFs by itself and would race with the steps.
  await vm().ok('udevadm control --stop-exec-queue');
  await vm().write(PERFORM, readFileSync(fileURLToPath(new URL('../scenarios/perform.mjs', import.meta.url)), 'utf8'));
  await vm().write('/root/scenarios.json', JSON.stringify(SCENARIOS));
  const lines = await vm().ok(`node ${PERFORM} / hostdev < /root/scenarios.json`, { timeoutMs: 480_000 });
  outcomes = lines.split('\n').map((line) => JSON.parse(line) as Outcome[]);
});

for (const [n, scenario] of SCENARIOS.entries()) {
  test(scenario.name, () => {
    const came = outcomes[n] ?? [];
    expect(came).toHaveLength(scenario.steps.length);
    for (const [i, step] of scenario.steps.entries())
      expect(asked(step, came[i] ?? {}), `${i}: ${describeStep(step)}`).toEqual(expected(step));
  });
}

test('everything is as it was, so that no scenario stood on the leavings of another', async () => {
  const journal = await vm().ok('ls /run/hostdev/bindings /run/hostdev/journal 2>/dev/null | grep -c json || :');
  expect(journal).toBe('0');
});
