import type { Outcome, Scenario } from './step.ts';

export function performScenario(root: string, command: string[], scenario: Scenario): Outcome[];
