/** For which libvirt and QEMU a domain is judged: those that were named, or those of this host. */
import { type DomainFacts, effectiveArch } from '../domain/domainFacts.ts';
import { formatVersion, parseVersion, type Versions } from '../domain/version.ts';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { installedVersions } from '../libvirt/versions.ts';

/** Versions as typed; null is not given. `connected`: those of a libvirt that is asked. */
export type AskedVersions = { libvirt: string | null; qemu: string | null; connected?: Versions };

/** The versions that an answer is for; null is not known. */
export type ShownVersions = {
  libvirt: string | null;
  qemu: string | null;
  source: 'given' | 'installed' | 'connection';
};

const show = (v: number | null): string | null => (v === null ? null : formatVersion(v));

function given(word: string | null, option: string): number | null {
  if (word === null) return null;
  const v = /^\d{1,3}\.\d{1,3}(\.\d{1,3})?$/.test(word) ? parseVersion(word) : null;
  if (v === null) {
    throw new HostdevError('HOSTDEV_USAGE', `${option} wants a version`, {
      hint: `Write ${option} 9.0.0, for instance.`,
    });
  }
  return v;
}

/**
 * The versions to judge by: those given, of which a missing one is not known; without any, those of the libvirt that is
 * asked, else those of this host (null: another is meant). Raises HOSTDEV_USAGE for a word that is no version.
 */
export async function readVersions(
  host: Host | null,
  domain: DomainFacts,
  asked: AskedVersions,
): Promise<{ versions: Versions; shown: ShownVersions; onHost: boolean }> {
  const onHost = host !== null && asked.libvirt === null && asked.qemu === null;
  const { connected } = asked;
  const versions = !onHost
    ? { libvirt: given(asked.libvirt, '--libvirt'), qemu: given(asked.qemu, '--qemu') }
    : (connected ?? (await installedVersions(host, effectiveArch(domain))));
  const source = !onHost ? 'given' : connected === undefined ? 'installed' : 'connection';
  return { versions, shown: { libvirt: show(versions.libvirt), qemu: show(versions.qemu), source }, onHost };
}
