/** The rows in which Nova crashed or was wrong, and what hostdev answers instead. */
import { expect } from 'vitest';
import type { Verdict } from '../../src/actions/simulate.ts';

type Better = { why: string; check: (ours: Verdict, novas: Verdict) => void };
export const BETTER: Record<string, Better> = {};
export const _ = expect;
