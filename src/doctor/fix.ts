/** Fixes that no file of a tool's holds, and what several tables of tools are known by. */
import type { Fix } from './table.ts';

export { NIXOS, OSTREE, TRANSACTIONAL } from '../host/initramfsMakers.ts';

export const NIXOS_FOLDER = 'etc/nixos';
export const NIXOS_FILE = `${NIXOS_FOLDER}/configuration.nix`;
export const NIXOS_AFTER = 'nixos-rebuild boot; then reboot';

/** A word that a shell reads as it is. */
export const shellWord = (word: string): string =>
  /^[\w.,:=@/+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

/** A line of configuration.nix. */
export const nixosFix = (line: string): Fix => ({
  tool: 'nixos',
  where: `/${NIXOS_FILE}`,
  line,
  present: true,
  after: NIXOS_AFTER,
});

/** A setting of the firmware: no file holds it. */
export const firmwareFix = (line: string): Fix => ({
  tool: 'firmware',
  where: 'firmware settings',
  line,
  present: true,
  after: 'power the machine off and on',
});

/** A command to run. */
export const commandFix = (line: string, after: string | null = null): Fix => ({
  tool: 'shell',
  where: 'as root',
  line,
  present: true,
  after,
});

/** What a reboot does to a binding, and what makes up for it. */
export const UNTIL_REBOOT =
  "a reboot undoes it, but for --persist: hostdev's hook, or libvirt, binds what a guest has at each of its starts";

/** Binds devices by address; `then` says when to do it, or what it is for. */
export const bindFix = (addresses: readonly string[], then: string): Fix =>
  commandFix(`hostdev bind ${addresses.join(' ')}`, `${then}; ${UNTIL_REBOOT}`);
