/**
 * Carries out the steps of scenarios on a real tree: the FUSE host's, from the test's process, and the VM's, where this
 * file runs by itself (`node perform.mjs ROOT HOSTDEV… < scenarios.json`), hence plain JavaScript. Prints what came of
 * each step.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, constants, existsSync, lstatSync, openSync, readFileSync, readlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What a step does: each raises the errno, or gives an Outcome. */
function act(root, command, step) {
  const at = (path) => join(root, 'sys/bus/pci', path);
  if ('write' in step) {
    const fd = openSync(at(step.write), constants.O_WRONLY);
    try {
      writeSync(fd, step.value);
    } finally {
      closeSync(fd);
    }
    return {};
  }
  if ('read' in step) {
    const fd = openSync(at(step.read), constants.O_RDONLY);
    try {
      return { text: readFileSync(fd, 'latin1') };
    } finally {
      closeSync(fd);
    }
  }
  if ('link' in step) return { link: readlinkSync(at(step.link)).split('/').at(-1) };
  if ('exists' in step) return { exists: existsSync(at(step.exists)) };
  const [program, ...words] = command;
  const { status, stdout } = spawnSync(program, [...words, ...step.hostdev, '-j'], {
    encoding: 'utf8',
    timeout: 120_000,
  });
  const json = JSON.parse(stdout);
  return { exit: status, code: json.error?.code, changed: json.changed };
}

function perform(root, command, step) {
  try {
    return act(root, command, step);
  } catch (e) {
    if ('link' in step && e.code === 'ENOENT') return { link: null };
    return { errno: e.code ?? String(e) };
  }
}

/** The outcomes of a scenario's steps, its cleanup done. `command` is hostdev's command line for this root. */
export function performScenario(root, command, scenario) {
  const outcomes = scenario.steps.map((step) => perform(root, command, step));
  for (const step of scenario.cleanup) perform(root, command, step);
  return outcomes;
}

if (
  process.argv[1] !== undefined &&
  lstatSync(process.argv[1]).isFile() &&
  process.argv[1] === fileURLToPath(import.meta.url)
) {
  const [, , root, ...command] = process.argv;
  const scenarios = JSON.parse(readFileSync(0, 'utf8'));
  for (const s of scenarios) process.stdout.write(`${JSON.stringify(performScenario(root, command, s))}\n`);
}
