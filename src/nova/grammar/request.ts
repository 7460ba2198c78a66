/** What a consumer asks for: `pci_passthrough:alias` of a flavor, "gpu:1, qat-c62x-vf:2" (nova/pci/request.py). */

import { nearestWord } from '../../text/nearestWord.ts';
import { quote } from '../../text/safe.ts';
import { type Alias, type Aliases, isNumaPolicy, type NumaPolicy, type RequestSpec } from './alias.ts';
import { type Note, NovaError, note } from './novaError.ts';

/** One alias and a number of it. `alias_name` is null for a neutron port; `numa_policy` null counts as legacy. */
export type PciRequest = {
  alias_name: string | null;
  count: number;
  numa_policy: NumaPolicy | null;
  spec: RequestSpec[];
};

/** A flavor's value; longer ones are no request. */
const MAX_TEXT = 64 * 1024;
/** A host has no more functions than PCI addresses: 65,536 domains of 65,536 make no sense here. */
const MAX_COUNT = 1_000_000;

/** Python's int(): blanks, sign, single underscores. */
const INT = /^\s*([+-]?)(\d+(?:_\d+)*)\s*$/;

const invalid = (message: string): NovaError => new NovaError('ValueError', message, { key: 'request' });

/**
 * Names and counts of a request text. A count left out means 1, as StarlingX documents it, and is noted (Nova answers
 * with an internal error). `checkName` may raise for a name and is asked part by part, before the part's number is
 * read: Nova's order of errors. Raises ValueError (HOSTDEV_REQUEST) for anything that is no such list.
 */
export function parseRequest(
  text: string,
  checkName: (name: string) => void = () => {},
): { wants: { name: string; count: number }[]; notes: Note[] } {
  if (text.length > MAX_TEXT) throw invalid(`A request of ${text.length} characters; at most ${MAX_TEXT} are taken`);
  const notes: Note[] = [];
  const wants = text.split(',').map((part) => {
    const pieces = part.split(':');
    const [name = '', number] = pieces;
    if (pieces.length > 2) throw invalid(`${quote(part.trim())} is no alias and number: it has more than one colon`);
    if (part.trim() === '') throw invalid(`The request ${quote(text)} has an empty part`);
    checkName(name.trim());
    if (number === undefined) notes.push(note(`${quote(name.trim())} has no number: 1 is meant`, 'request'));
    return { name: name.trim(), count: number === undefined ? 1 : parseCount(name.trim(), number) };
  });
  return { wants, notes };
}

function parseCount(name: string, text: string): number {
  const m = text.length > 32 ? null : INT.exec(text);
  if (m === null) throw invalid(`The number of ${quote(name)} is ${quote(text.trim())}, not a whole number`);
  const count = Number(m[2]?.replaceAll('_', ''));
  if (m[1] === '-' && count !== 0) throw invalid(`The number of ${quote(name)} is below 0`);
  if (count > MAX_COUNT) throw invalid(`The number of ${quote(name)} is above ${MAX_COUNT}`);
  return count;
}

/** Raises PciRequestAliasNotDefined, with the name that was probably meant. */
export function findAlias(aliases: Aliases, name: string): Alias {
  const alias = aliases.get(name);
  if (alias !== undefined) return alias;
  const meant = nearestWord(name, [...aliases.keys()]);
  throw new NovaError('PciRequestAliasNotDefined', `There is no alias ${quote(name)}`, {
    key: 'request',
    ...(meant === null ? {} : { hint: `Did you mean ${quote(meant)}?` }),
  });
}

/**
 * A request text resolved with the aliases. `policy` is the flavor's or image's hw:pci_numa_affinity_policy and goes
 * before the aliases' own. Raises ValueError, PciRequestAliasNotDefined or InvalidPCINUMAAffinity.
 */
export function resolveRequest(
  text: string,
  aliases: Aliases,
  policy: string | null = null,
): { requests: PciRequest[]; notes: Note[] } {
  const affinity = parsePolicy(policy);
  const { wants, notes } = parseRequest(text);
  const requests = wants.map(({ name, count }) => {
    const alias = findAlias(aliases, name);
    return {
      alias_name: name,
      count,
      numa_policy: affinity ?? alias.numa_policy,
      spec: alias.specs.map((s) => ({ ...s })),
    };
  });
  return { requests, notes };
}

/** A NUMA affinity policy given with a request; null is none. Raises InvalidPCINUMAAffinity. */
export function parsePolicy(policy: string | null): NumaPolicy | null {
  if (policy === null || isNumaPolicy(policy)) return policy;
  throw new NovaError('InvalidPCINUMAAffinity', `There is no NUMA affinity policy ${quote(policy)}`, {
    key: 'numa_policy',
    hint: 'There are required, preferred, legacy and socket.',
  });
}
