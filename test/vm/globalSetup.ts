import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { ensureImage, projectDir } from './image.ts';
import { chooseAccel } from './machine.ts';

/** Has the image ready before any test file runs. Without one the suite fails: it never skips by itself. */
export async function setup(): Promise<void> {
  // What the suites install, and the version after it.
  await prepare(['0.1.0', '0.1.1']);
}

/** Builds the packages of these versions, and the image if need be; says, loudly, where all is skipped. */
export async function prepare(versions: readonly string[]): Promise<void> {
  if (process.env.HOSTDEV_VM === 'skip') {
    const bar = '!'.repeat(100);
    process.stderr.write(
      `${bar}\n!! VM SUITE SKIPPED because HOSTDEV_VM=skip: nothing here ran on a real kernel\n${bar}\n`,
    );
    return;
  }
  for (const version of process.env.HOSTDEV_VM_PACKAGE === 'built' ? [] : versions)
    execFileSync(
      process.execPath,
      [path.join(projectDir, 'tools/package.mjs'), '--without-node', '--version', version],
      {
        stdio: ['ignore', 'ignore', 'inherit'],
      },
    );
  const image = await ensureImage();
  // Decided once: the workers inherit it, and none probes again.
  process.env.HOSTDEV_VM_ACCEL = await chooseAccel(image);
}
