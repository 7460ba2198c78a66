import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/{unit,sim,conformance}/**/*.test.ts'],
    // By itself vitest leaves a core alone, which is one of two where this is tested.
    maxWorkers: availableParallelism(),
    // Only what hangs for good takes as long: a busy machine is no reason to fail.
    testTimeout: 900_000,
    hookTimeout: 900_000,
  },
});
