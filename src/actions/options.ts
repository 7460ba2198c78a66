/** What every action is given: the options that are global on the command line (contract 3), already validated. */
import type { Guard } from '../binding/guards.ts';
import type { SessionOptions } from '../binding/session.ts';
import type { Warning } from '../text/warning.ts';

export type ActionOptions = SessionOptions & {
  dryRun: boolean;
  allowed: ReadonlySet<Guard>;
};

/** What a change answers with beside its own keys. */
export type Warned = { warnings: Warning[] };
