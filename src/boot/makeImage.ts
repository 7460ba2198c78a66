/**
 * Making an initramfs anew by its own maker, so that a power cut leaves the old one or the new one. On the machine
 * itself only.
 */
import { spawn } from 'node:child_process';
import { closeSync, fsyncSync, openSync, renameSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { safe } from '../text/safe.ts';
import type { Image, Maker } from './images.ts';

/** Makers are shell scripts that call many programs. */
const ENV = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' };

/**
 * Makes an image anew and sees it on the disk. Raises HOSTDEV_INITRAMFS with the maker's last words; the old image is
 * there then.
 */
export async function makeImage(host: Host, image: Image, maker: Maker): Promise<void> {
  const file = host.absolute(image.file);
  if (maker === 'initramfs-tools') {
    // It writes beside the image and renames.
    await run(['update-initramfs', '-u', '-k', image.release], file);
    sync(file);
    return;
  }
  // dracut copies over the image, which a power cut would leave half.
  const fresh = `${file}.hostdev-new`;
  try {
    await run(['dracut', '-f', fresh, image.release], file);
    sync(fresh);
    renameSync(fresh, file);
    sync(dirname(file));
  } catch (e) {
    rmSync(fresh, { force: true });
    throw e instanceof HostdevError ? e : failed(file, (e as Error).message);
  }
}

function sync(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

const failed = (file: string, why: string): HostdevError =>
  new HostdevError('HOSTDEV_INITRAMFS', `${file} could not be made anew: ${why}`);

async function run([program = '', ...words]: readonly string[], file: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const child = spawn(program, words, { stdio: ['ignore', 'pipe', 'pipe'], env: ENV });
    let said = '';
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => {
        said = (said + text).slice(-4000);
      });
    child.on('error', (e) => reject(failed(file, `${program} could not be started (${e.message})`)));
    child.on('close', (code, signal) => {
      const last = said
        .trim()
        .split('\n')
        .slice(-3)
        .map((l) => safe(l))
        .join(' / ');
      if (code === 0) resolve();
      else reject(failed(file, `${program} ended with ${code ?? signal}: ${last}`));
    });
  });
}
