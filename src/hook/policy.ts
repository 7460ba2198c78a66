/** What hostdev.toml says for the hook, and which devices of a domain that leaves to it. */
import type { Allowance } from '../binding/guards.ts';
import { readHookConfig } from '../config/hookSettings.ts';
import type { DomainDevices } from '../domain/hostDevices.ts';
import type { Host } from '../host/host.ts';

/** `[hook] unmanaged` and `[[allow]]`. */
export type HookPolicy = { unmanaged: 'bind' | 'check' | 'ignore'; allowances: readonly Allowance[] };

/** Raises HOSTDEV_CONFIG (with a mistake there no guard is lifted by a guess) and HOSTDEV_NOT_PERMITTED. */
export async function hookPolicy(host: Host): Promise<HookPolicy> {
  const { hook, allow } = await readHookConfig(host);
  return { unmanaged: hook.unmanaged, allowances: allow };
}

/** The devices of a domain that are the hook's affair: with `unmanaged = "ignore"` only those that libvirt manages. */
export const concerned = (domain: DomainDevices, { unmanaged }: HookPolicy): DomainDevices =>
  unmanaged === 'ignore' ? { ...domain, devices: domain.devices.filter((d) => d.managed) } : domain;
