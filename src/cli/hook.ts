import { testHook } from '../actions/hookTest.ts';
import { poolText } from '../actions/networkPools.ts';
import { uninstall } from '../actions/uninstall.ts';
import { readHookConfig } from '../config/hookSettings.ts';
import { EXIT } from '../errors.ts';
import { type HookChange, hookStatus, installHook, removeHook } from '../hook/install.ts';
import { hookProgram } from '../hook/program.ts';
import { installedLibvirt } from '../libvirt/versions.ts';
import { safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { readInput } from './input.ts';
import { table } from './table.ts';

/** `hostdev hook test FILE` */
export async function hookTest({ host, words, options, connect }: Invocation): Promise<Answer> {
  const file = words[0] ?? '-';
  const what = file === '-' ? 'stdin' : file;
  const { warnings, ...json } = await testHook(host, await readInput(file), what, options, connect);
  const rows = json.devices.map((d) => [d.address, d.kind, d.managed ? 'yes' : 'no', d.driver ?? '-', d.will_be]);
  const networks = json.network_pools.map((p) => `${safeBlock(poolText(p))}\n`).join('');
  const text =
    rows.length === 0 && networks === ''
      ? `Domain ${json.domain.name} takes no host devices\n`
      : table(['ADDRESS', 'KIND', 'MANAGED', 'DRIVER', 'WILL BE'], rows) + networks;
  return { json, text, warnings };
}

/** `hostdev hook install` */
export async function hookInstall({ host, options }: Invocation): Promise<Answer> {
  const { hook } = await readHookConfig(host);
  const change = installHook(host, hookProgram(), options.dryRun, hook, await installedLibvirt(host));
  return changeAnswer(change, options, ['Installed', 'Would install'], `${change.path} is installed already`);
}

/** `hostdev hook remove` */
export async function hookRemove({ host, own, options }: Invocation): Promise<Answer> {
  const change =
    own.uninstall === true ? await uninstall(host, hookProgram(), options.dryRun) : removeHook(host, options.dryRun);
  return changeAnswer(change, options, ['Removed', 'Would remove'], 'It is not installed');
}

/** `would`: a dry run, and the real one would change it. */
function changeAnswer(
  { changed, path, notes, refused }: HookChange,
  { dryRun }: Invocation['options'],
  [did, would]: [did: string, would: string],
  already: string,
): Answer {
  return {
    json: { changed: changed && !dryRun, would: changed && dryRun, path, notes: notes.map((n) => n.text) },
    text: changed ? `${dryRun ? would : did} ${path}\n` : `${already}\n`,
    warnings: notes,
    refused,
  };
}

/** `hostdev hook status`: exit 3 when it is not installed or libvirt could not run it. */
export function hookStatusCommand({ host }: Invocation): Answer {
  const { installed, path, problems } = hookStatus(host, hookProgram());
  const good = problems.length === 0;
  const lines = problems.map((p) => p.text);
  return {
    json: { installed, path, problems: lines },
    text: good ? `${path} is installed\n` : `${lines.join('\n')}\n`,
    exit: good ? EXIT.done : EXIT.no,
  };
}
