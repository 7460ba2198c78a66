import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { defineConfig, mergeConfig } from 'vitest/config';
import others from '../vitest.config.ts';

const here = path.dirname(fileURLToPath(import.meta.url));

/** Boots take a minute each under emulation, and a test has several. */
export default mergeConfig(
  others,
  defineConfig({
    test: {
      dir: here,
      globalSetup: path.join(here, 'globalSetup.ts'),
      testTimeout: 3_600_000,
      hookTimeout: 1_800_000,
    },
  }),
);
