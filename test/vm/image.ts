/** The image the machines boot: built by image/build.sh when its cached copy is missing, used as it is otherwise. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** Where the parts of a built image lie. */
export interface Image {
  dir: string;
  qemu: string;
  kernel: string;
  initrd: string;
  root: string;
  sshKey: string;
}

// shell.mjs runs these files bundled and elsewhere, and says then where they come from.
const here = process.env.HOSTDEV_VM_DIR ?? path.dirname(fileURLToPath(import.meta.url));

/** The folder of the checkout. */
export const projectDir = path.resolve(here, '../..');

const builds = new Map<string, Promise<Image>>();

/** Builds the image if need be (minutes, progress on stderr) and says where it is. */
export function ensureImage(): Promise<Image> {
  let build = builds.get(here);
  if (!build) {
    build = runBuild(path.join(here, 'image/build.sh')).then((dir) => ({
      dir,
      qemu: path.join(dir, 'qemu/qemu-system-x86_64'),
      kernel: path.join(dir, 'kernel/vmlinuz'),
      initrd: path.join(dir, 'kernel/initrd'),
      root: path.join(dir, 'root.img'),
      sshKey: path.join(dir, 'id_ed25519'),
    }));
    builds.set(here, build);
  }
  return build;
}

/** Runs a script that builds what is missing, its progress on stderr, and gives the folder that it prints. */
export function runBuild(script: string, ...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn('bash', [script, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    let told = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      process.stderr.write(text);
      told = (told + text).slice(-4000);
    });
    const end = () => child.kill('SIGTERM');
    process.once('exit', end);
    child.on('error', reject);
    child.on('close', (code) => {
      process.removeListener('exit', end);
      if (code === 0) resolve(out.trim());
      else
        reject(
          new Error(`the VM image cannot be built (exit ${code})\n${told.trim().split('\n').slice(-8).join('\n')}`),
        );
    });
  });
}
