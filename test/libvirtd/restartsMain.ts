/** `npm run libvirt:restarts`: see restarts.ts; HOSTDEV_RESTARTS (200) is how many. Prints them and what came of it. */
import { loadNative } from '../../src/addon/load.ts';
import { restarts } from './restarts.ts';
import { LibvirtSandbox, sandboxLacks } from './sandbox.ts';

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

const lacks = sandboxLacks();
if (lacks !== null) {
  process.stderr.write(`hostdev: ${lacks}\n`);
  process.exit(1);
}
const native = loadNative();
const sandbox = await LibvirtSandbox.start('test/libvirtd/sandbox.sh');
try {
  const openCalls = () => {
    const calls = native.openLibvirt?.();
    if (calls === undefined) throw new Error('the addon is not in use here');
    return calls;
  };
  const { missed, ...rest } = await restarts(sandbox, openCalls, Number(process.env.HOSTDEV_RESTARTS ?? 200), say);
  for (const line of missed) say(`MISSED: ${line}`);
  say(JSON.stringify({ ...rest, missed: missed.length }));
  const [before, after] = rest.rss;
  if (missed.length > 0 || after > before * 1.1) process.exitCode = 1;
} finally {
  await sandbox.stop();
}
