import { Bed } from './boot/bed.ts';
import { installHostdev } from './guest.ts';
import { startMachine } from './machine.ts';
import type { Profile } from './topology.ts';

/** A machine to look around in, until Ctrl-C. Run it through shell.mjs. */
export async function shell(args: readonly string[]): Promise<void> {
  const profile = (args.find((arg) => !arg.startsWith('-')) ?? 'intel') as Profile;
  const bed = args.includes('--boot') ? await Bed.make(profile === 'amd' ? 'amd' : 'intel') : null;
  const machine = bed === null ? await startMachine({ profile }) : await bed.boot();
  if (args.includes('--install')) await installHostdev(machine);
  process.stdout.write(`${machine.sshCommand}\n`);
  process.stderr.write(`console: ${machine.runDir}/serial.log; Ctrl-C here ends the machine\n`);
  setInterval(() => undefined, 60_000);
}
