/**
 * Domains and networks as libvirt lists them, with their XML read; each call is its own, so that one guest whose XML
 * does not come keeps none of the others back.
 */
import { type DomainDevices, readDomainDevices } from '../domain/hostDevices.ts';
import { type HostdevNetwork, readHostdevNetwork } from '../domain/network.ts';
import { below, type Version, version } from '../domain/version.ts';
import { type Domain, readDomain } from '../domain/xml/domain.ts';
import { HostdevError } from '../errors.ts';
import { quote, safe } from '../text/safe.ts';
import { type Connection, isUnsupported } from './connection.ts';

/** virDomainXMLFlags */
const SECURE = 1;
const INACTIVE = 2;
/** virDomainDefineFlags */
const VALIDATE = 1;
/** virDomainUndefineFlagsValues; the second is known from 8.9.0 on. */
const KEEP_NVRAM = 8;
const KEEP_TPM = 64;
const KNOWS_KEEP_TPM = version('8.9.0');
/** virConnectListAllNetworksFlags: those that run. */
const ACTIVE_NETWORKS = 2;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** `id` is another at each start; null: it does not run. */
export type ListedDomain = { uuid: string; name: string; active: boolean; persistent: boolean; id: number | null };

/** Null: there is no such one (it does not run, or is not kept). `why` is a clause where it is not known. */
export type Half = { domain: Domain; devices: DomainDevices } | null;

export type SeenDomain = ListedDomain & { live: Half; kept: Half; why: string | null };

/** A row of the addon's; none where libvirt's UUID is none. */
const listedOf = ([uuid = '', name = '', active, kept, id = '']: string[]): ListedDomain[] =>
  UUID.test(uuid)
    ? [{ uuid, name, active: active === '1', persistent: kept === '1', id: id === '' ? null : Number(id) }]
    : [];

/** One domain. Raises HOSTDEV_GUEST_ABSENT, and what Connection.call raises. */
export async function findDomain(connection: Connection, uuid: string, deadlineMs: number): Promise<ListedDomain> {
  const [found] = (await connection.call('domain', uuid, 0, deadlineMs)).flatMap(listedOf);
  if (found === undefined) throw new HostdevError('HOSTDEV_GUEST_ABSENT', `There is no guest ${quote(uuid)}`);
  return found;
}

/** All domains, running or not, by name. */
export async function listDomains(connection: Connection, deadlineMs: number): Promise<ListedDomain[]> {
  const rows = await connection.call('domains', '', 0, deadlineMs);
  return rows.flatMap(listedOf).sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

/** The XML of one domain, of now or (`kept`) of its next start. */
async function domainXml(connection: Connection, uuid: string, kept: boolean, deadlineMs: number): Promise<string> {
  const rows = await connection.call('domain-xml', uuid, kept ? INACTIVE : 0, deadlineMs);
  return rows[0]?.[0] ?? '';
}

/** What a domain is kept as, with its passwords: for who defines it again. Only for a connection that may write. */
export async function keptXml(connection: Connection, uuid: string, deadlineMs: number): Promise<string> {
  const rows = await connection.call('domain-xml', uuid, INACTIVE | SECURE, deadlineMs);
  return rows[0]?.[0] ?? '';
}

/** Defines, and gives the UUID. `validate` false: it is an XML that libvirt itself gave. */
export async function defineXml(
  connection: Connection,
  xml: string,
  validate: boolean,
  deadlineMs: number,
): Promise<string> {
  const rows = await connection.call('define', xml, validate ? VALIDATE : 0, deadlineMs);
  return rows[0]?.[0] ?? '';
}

/** Asks for QEMU's command line of a domain, which nobody reads: what libvirt's parser and validators say counts. */
export async function tryNative(connection: Connection, xml: string, deadlineMs: number): Promise<void> {
  await connection.call('to-native', xml, 0, deadlineMs);
}

/**
 * Takes the definition of a domain away; what it has on disk stays, and a guest that runs goes on. `has` is what is to
 * be kept for it: not every driver knows these flags.
 */
export async function undefineDomain(
  connection: Connection,
  uuid: string,
  has: { nvram: boolean; tpm: boolean },
  daemon: Version | null,
  deadlineMs: number,
): Promise<void> {
  const tpm = has.tpm && !below(daemon, KNOWS_KEEP_TPM);
  await connection.call('undefine', uuid, (has.nvram ? KEEP_NVRAM : 0) | (tpm ? KEEP_TPM : 0), deadlineMs);
}

/** A domain as it is now, or (`kept`) as it will be at its next start. */
export async function readHalf(
  connection: Connection,
  d: ListedDomain,
  kept: boolean,
  deadlineMs: number,
): Promise<Half> {
  if (!(kept ? d.persistent : d.active)) return null;
  const domain = readDomain(await domainXml(connection, d.uuid, kept, deadlineMs), `domain ${safe(d.name)}`);
  // One that has ended since it was listed gives what it is kept as; only one that runs has an id.
  if (!kept && domain.root.getAttribute('id') === null) return null;
  return { domain, devices: readDomainDevices(domain) };
}

/** What a domain is now and what it is kept as. Raises what Connection.call raises, and errors of its XML. */
export const readHalves = async (
  connection: Connection,
  d: ListedDomain,
  left: () => number,
): Promise<{ live: Half; kept: Half }> => ({
  live: await readHalf(connection, d, false, left()),
  kept: await readHalf(connection, d, true, left()),
});

/** A domain with both halves; what ends meanwhile has neither. */
async function seeDomain(connection: Connection, d: ListedDomain, deadlineMs: number): Promise<SeenDomain> {
  try {
    return { ...d, ...(await readHalves(connection, d, () => deadlineMs)), why: null };
  } catch (e) {
    if (!(e instanceof HostdevError)) throw e;
    const gone = e.code === 'HOSTDEV_GUEST_ABSENT';
    return { ...d, active: gone ? false : d.active, live: null, kept: null, why: gone ? null : e.message };
  }
}

/** All of them, one after the other, as a connection takes calls; `left` gives the time that is left. */
export async function seeDomains(connection: Connection, left: () => number): Promise<SeenDomain[]> {
  const seen: SeenDomain[] = [];
  for (const listed of await listDomains(connection, left())) seen.push(await seeDomain(connection, listed, left()));
  return seen;
}

/** The domain of that name or UUID. Raises HOSTDEV_GUEST_ABSENT, and why its XML did not come. */
export async function seeGuest(connection: Connection, word: string, left: () => number): Promise<SeenDomain> {
  const all = await listDomains(connection, left());
  const listed = all.find((d) => d.uuid === word.toLowerCase()) ?? all.find((d) => d.name === word);
  if (listed === undefined) throw new HostdevError('HOSTDEV_GUEST_ABSENT', `There is no guest ${quote(word)}`);
  const live = await readHalf(connection, listed, false, left());
  return { ...listed, live, kept: await readHalf(connection, listed, true, left()), why: null };
}

/** The networks that run and are pools of host devices; none where its driver has no networks. */
export async function hostdevNetworks(connection: Connection, deadlineMs: number): Promise<HostdevNetwork[]> {
  try {
    const rows = await connection.call('networks', '', ACTIVE_NETWORKS, deadlineMs);
    return rows.flatMap(([name = '', xml = '']) => readHostdevNetwork(xml, name) ?? []);
  } catch (e) {
    if (isUnsupported(e)) return [];
    throw e;
  }
}
