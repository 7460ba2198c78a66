import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: { include: ['test/{unit,sim,conformance}/**/*.test.ts'], testTimeout: 20_000 },
});
