/** The shared scenarios on the kernel in memory: what the other unit tests stand on. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { bindDevices } from '../../src/actions/bind.ts';
import { unbindDevices } from '../../src/actions/unbind.ts';
import { HostdevError } from '../../src/errors.ts';
import { Host } from '../../src/host/host.ts';
import { KernelModel } from '../mock/kernel.ts';
import { EVER } from '../patience.ts';
import { COMMON } from '../scenarios/host.ts';
import { SCENARIOS } from '../scenarios/list.ts';
import { asked, describeStep, expected, type Outcome, type Step } from '../scenarios/step.ts';

const roots: string[] = [];
afterEach(() => {
  for (const root of roots.splice(0)) rmSync(root, { recursive: true, force: true });
});

async function act(kernel: KernelModel, host: Host, step: Step): Promise<Outcome> {
  if ('write' in step) {
    await kernel.openWriter().write(`sys/bus/pci/${step.write}`, step.value, 1000);
    return {};
  }
  if ('read' in step) return { text: kernel.readFile('', `sys/bus/pci/${step.read}`, 4096) };
  if ('link' in step) return { link: host.linkName(`sys/bus/pci/${step.link}`) };
  if ('exists' in step) {
    const at = `sys/bus/pci/${step.exists}`;
    return { exists: host.list(at) !== null || kernel.isFile(at) };
  }
  const [verb = '', ...words] = step.hostdev;
  const options = { allowed: new Set<never>(), deadlineMs: EVER, dryRun: false };
  const run = {
    bind: () => bindDevices(host, words, null, options),
    unbind: () => unbindDevices(host, words, false, options),
  }[verb];
  if (!run) throw new Error(`no such action: ${verb}`);
  try {
    return { exit: 0, changed: (await run()).changed };
  } catch (e) {
    if (e instanceof HostdevError) return { exit: e.exit, code: e.code };
    throw e;
  }
}

async function outcome(kernel: KernelModel, host: Host, step: Step): Promise<Outcome> {
  try {
    return await act(kernel, host, step);
  } catch (e) {
    return { errno: (e as NodeJS.ErrnoException).code ?? String(e) };
  }
}

for (const scenario of SCENARIOS) {
  test(scenario.name, async () => {
    const root = mkdtempSync(join(tmpdir(), 'hostdev-model-'));
    roots.push(root);
    const kernel = new KernelModel(structuredClone(COMMON.devices), structuredClone(COMMON.drivers), COMMON.aliases);
    const host = new Host(root, kernel);
    const state = (): string[] =>
      [...kernel.devices.values()].map((d) => `${d.address} ${d.driver} ${d.override}`).sort();
    const before = state();
    for (const [i, step] of scenario.steps.entries())
      expect(asked(step, await outcome(kernel, host, step)), `${i}: ${describeStep(step)}`).toEqual(expected(step));
    for (const step of scenario.cleanup) await outcome(kernel, host, step);
    expect(state()).toEqual(before);
  });
}
