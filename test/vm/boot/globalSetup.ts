import { prepare } from '../globalSetup.ts';
import { skipped } from '../suite.ts';
import { ensureDisk } from './bed.ts';

/** Has package, image and the disk on top of it ready before any test file runs. */
export async function setup(): Promise<void> {
  await prepare(['0.1.0']);
  if (!skipped) await ensureDisk();
}
