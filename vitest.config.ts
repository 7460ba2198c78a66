import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/{unit,sim,conformance}/**/*.test.ts'],
    // Only what hangs for good takes as long: a busy machine is no reason to fail.
    testTimeout: 900_000,
    hookTimeout: 900_000,
  },
});
