import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const here = path.dirname(fileURLToPath(import.meta.url));

export default defineConfig({
  test: {
    dir: here,
    include: ['*.vm.test.ts'],
    globalSetup: path.join(here, 'globalSetup.ts'),
    setupFiles: path.join(here, 'setup.ts'),
    // One machine at a time: two starve each other.
    pool: 'forks',
    fileParallelism: false,
    maxWorkers: 1,
    testTimeout: 180_000,
    hookTimeout: 900_000,
    teardownTimeout: 30_000,
  },
});
