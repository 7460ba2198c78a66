/** Warnings in tests: what people read of them. */
import { expect } from 'vitest';
import type { Warning } from '../../src/text/warning.ts';

export const texts = (warnings: readonly Warning[] | undefined): string[] => (warnings ?? []).map((w) => w.text);

/** A warning, wherever it is expected, whose text has this in it. */
export const saying = (text: string | RegExp): Warning =>
  expect.objectContaining({
    text: typeof text === 'string' ? expect.stringContaining(text) : expect.stringMatching(text),
  });
