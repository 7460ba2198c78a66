/**
 * What the hook needs of the configuration. It is called for every start of a guest: without files in etc/hostdev
 * nothing is parsed, and no parser loaded.
 */
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import type { Allowance } from './config.ts';
import { HOOK_DEFAULTS, type HookSettings } from './hookDefaults.ts';
import { placeText } from './place.ts';
import { ownFiles } from './readText.ts';

export type HookConfig = { hook: HookSettings; allow: Allowance[] };

/**
 * `[hook]` and `[[allow]]` of etc/hostdev. Raises HOSTDEV_CONFIG at a mistake in these two sections or in the TOML
 * itself (a guard must not be lifted by a guess); what is wrong with a spec or an alias is not the hook's affair.
 * Raises HOSTDEV_NOT_PERMITTED where a file cannot be read.
 */
export async function readHookConfig(host: Host): Promise<HookConfig> {
  if (ownFiles(host, host.absolute(host.config)).length === 0) return { hook: { ...HOOK_DEFAULTS }, allow: [] };
  const { loadConfig } = await import('./load.ts');
  const config = await loadConfig(host, []);
  const wrong = config.findings.find((f) => f.fatal && !/^(?:device_spec|alias|pci)\b/.test(f.key));
  if (wrong !== undefined)
    throw new HostdevError(
      'HOSTDEV_CONFIG',
      `${placeText(wrong)} ${wrong.message}`,
      wrong.hint === null ? {} : { hint: wrong.hint },
    );
  return { hook: config.hook, allow: config.allow };
}
