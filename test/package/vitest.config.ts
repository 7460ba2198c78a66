import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    dir: path.dirname(fileURLToPath(import.meta.url)),
    include: ['*.test.ts'],
    // Roots are made and packages built: minutes on a busy machine.
    testTimeout: 600_000,
    hookTimeout: 1_800_000,
    fileParallelism: false,
  },
});
