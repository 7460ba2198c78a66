/** The shared scenarios on the FUSE host, by raw writes and by the built CLI. */
import { expect, test } from 'vitest';
import { CLI } from '../mock/tree.ts';
import { COMMON } from '../scenarios/host.ts';
import { SCENARIOS } from '../scenarios/list.ts';
import { performScenario } from '../scenarios/perform.mjs';
import { asked, describeStep, expected } from '../scenarios/step.ts';
import { describeSim, useSimHosts } from './simhost.ts';

const sims = useSimHosts();

describeSim('scenarios', () => {
  for (const scenario of SCENARIOS) {
    test(scenario.name, async () => {
      const sim = await sims.start(COMMON);
      const state = (): string[] => sim.run('list').out.split('\n').filter(Boolean);
      const before = state();
      const outcomes = performScenario(sim.root, [process.execPath, CLI, '--root', sim.root], scenario);
      for (const [i, step] of scenario.steps.entries())
        expect(asked(step, outcomes[i] ?? {}), `${i}: ${describeStep(step)}`).toEqual(expected(step));
      expect(state(), 'the cleanup puts everything back').toEqual(before);
    });
  }
});
