/**
 * `domain define`: a domain, with the changes of `domain plan`, is judged, defined with VALIDATE, and read back. What
 * libvirt dropped or changed of what is ours takes the definition back; of the rest it is told. An older libvirt drops
 * without a word what it does not know (9.0.0: xtsup, granule, iommufd and others).
 */

import { checkDomain } from '../domain/checkDomain.ts';
import { readDomainFacts } from '../domain/domainFacts.ts';
import { readDomainDevices } from '../domain/hostDevices.ts';
import { type Difference, differences } from '../domain/keptXml.ts';
import { type Domain, readDomain } from '../domain/xml/domain.ts';
import { HostdevError } from '../errors.ts';
import { previewHook } from '../hook/preview.ts';
import type { Host } from '../host/host.ts';
import { type Connection, isXmlFault } from '../libvirt/connection.ts';
import { defineXml, keptXml, type ListedDomain, listDomains, undefineDomain } from '../libvirt/domains.ts';
import { connectedVersions } from '../libvirt/versions.ts';
import { scanInventory } from '../pci/inventory.ts';
import { fixText } from '../text/finding.ts';
import { quote } from '../text/safe.ts';
import { sentence } from '../text/sentence.ts';
import { type Warning, warning } from '../text/warning.ts';
import { bySchema, type JudgeVerdict } from './domainJudges.ts';
import { type DomainPlan, type DomainPlanRequest, planDomain } from './domainPlan.ts';
import type { ShownVersions } from './domainVersions.ts';
import { withAsked } from './guests.ts';
import type { ActionOptions, Warned } from './options.ts';

export type DomainDefined = Warned &
  Pick<DomainPlan, 'removed' | 'requests' | 'numa_nodes' | 'viommu'> & {
    /** False of a dry run, and where it was kept like this already. */
    changed: boolean;
    /** A dry run, and the real one would define it. */
    would: boolean;
    domain: { name: string; uuid: string | null };
    /** It was kept by libvirt before, and this is its new definition; a guest that runs has it from its next start. */
    redefined: boolean;
    active: boolean;
    devices: { added: string[] };
    libvirt: { uri: string } & ShownVersions;
    judges: JudgeVerdict[];
    /** What libvirt keeps otherwise, or not at all, of what is not ours. */
    differences: Omit<Difference, 'ours'>[];
    /** As libvirt keeps it; in a dry run as it would be given to it. */
    xml: string;
  };

/** How many differences a message names. */
const MAX_NAMED = 6;

/**
 * Defines a domain; `what` names its XML, `request` what is changed in it before. Raises what planDomain raises,
 * HOSTDEV_DOMAIN_REFUSED, HOSTDEV_HOOK_MISSING, HOSTDEV_DOMAIN_CHANGED (nothing is left), HOSTDEV_UNDO_INCOMPLETE, and
 * what a connection raises; HOSTDEV_LIBVIRT_LATE with `pending` may be defined, and was not read back.
 */
export function defineDomain(
  host: Host,
  bytes: Uint8Array,
  what: string,
  request: Omit<DomainPlanRequest, 'connected'>,
  options: ActionOptions,
): Promise<DomainDefined> {
  return withAsked(
    host,
    request.connect,
    { readOnly: false, deadlineMs: options.deadlineMs },
    async (connection, left) => {
      const versions = await connectedVersions(connection, left());
      const asked = { ...request, connected: versions };
      const { warnings, versions: shown, ...plan } = await planDomain(host, bytes, what, asked, options);
      const domain = readDomain(plan.xml.replace(/^\uFEFF/, ''), what);
      const facts = readDomainFacts(domain);
      const schema = await bySchema(host, domain, shown);
      const [refused, ...more] = [...checkDomain(facts, versions), ...schema.findings].filter(
        (f) => f.stage === 'define',
      );
      if (refused !== undefined)
        throw new HostdevError(
          'HOSTDEV_DOMAIN_REFUSED',
          `libvirt would refuse ${what}: ${refused.where}: ${refused.cause} (${refused.rule})`,
          { hint: sentence(`${fixText(refused)}.`), data: { findings: [refused, ...more] } },
        );
      await refuseUnprepared(host, domain, options);
      const before = await findBefore(connection, plan.domain, left());
      const answer = {
        changed: false,
        would: options.dryRun,
        domain: plan.domain,
        redefined: before?.persistent === true,
        active: before?.active === true,
        devices: { added: plan.fragments.map((f) => f.address) },
        removed: plan.removed,
        requests: plan.requests,
        numa_nodes: plan.numa_nodes,
        viommu: plan.viommu,
        libvirt: { uri: connection.uri, ...shown },
        judges: [schema.verdict],
        differences: [],
        xml: domain.text,
        warnings,
      };
      if (options.dryRun) return answer;
      const earlier = before?.persistent === true ? await keptXml(connection, before.uuid, left()) : null;
      if (options.signal?.aborted) throw new HostdevError('HOSTDEV_INTERRUPTED', 'Interrupted; nothing was defined');
      const uuid = await define(connection, domain, left());
      const has = { nvram: facts.nvram, tpm: facts.tpm };
      const undo = (): Promise<string | null> =>
        takenBack(connection, { uuid, earlier, has }, versions.libvirt, left());
      const { xml, others } = await readBack(connection, domain, uuid, undo, left());
      if (options.signal?.aborted) await undone(undo, new HostdevError('HOSTDEV_INTERRUPTED', 'Interrupted'));
      return {
        ...answer,
        changed: xml !== earlier,
        domain: { ...plan.domain, uuid },
        judges: [schema.verdict, byLibvirt(shown)],
        differences: others.map(({ ours: _, ...d }) => d),
        xml,
        warnings: [...warnings, ...told(others)],
      };
    },
  );
}

const byLibvirt = ({ libvirt }: ShownVersions): JudgeVerdict => ({
  judge: 'libvirt',
  libvirt,
  verdict: 'passed',
  text: 'it was defined with VALIDATE, and read back',
});

/** Devices of managed='no' are nobody's to bind where no hook runs: the guest would not start. */
async function refuseUnprepared(host: Host, domain: Domain, options: ActionOptions): Promise<void> {
  const { runs, unmanaged, devices } = await previewHook(host, scanInventory(host), readDomainDevices(domain), options);
  if (runs || unmanaged === 'ignore') return;
  const left = devices.filter((d) => !d.listed.managed && !d.ready).map((d) => d.listed.address);
  if (left.length === 0) return;
  throw new HostdevError(
    'HOSTDEV_HOOK_MISSING',
    `No hook of hostdev's runs here, so nobody binds ${left.join(', ')} (managed='no') for the guest`,
  );
}

/** What libvirt has of that name or UUID. Raises HOSTDEV_DOMAIN_REFUSED where the two are of two domains. */
async function findBefore(
  connection: Connection,
  { name, uuid }: DomainPlan['domain'],
  deadlineMs: number,
): Promise<ListedDomain | null> {
  const all = await listDomains(connection, deadlineMs);
  const refuse = (text: string, hint: string): never => {
    throw new HostdevError('HOSTDEV_DOMAIN_REFUSED', text, { hint });
  };
  const named = all.find((d) => d.name === name);
  if (named !== undefined && named.uuid !== uuid)
    return refuse(
      `libvirt has a domain ${quote(name)} of UUID ${named.uuid}`,
      `To change that one, write <uuid>${named.uuid}</uuid>; else give this one another name.`,
    );
  const same = all.find((d) => d.uuid === uuid);
  if (same !== undefined && same.name !== name)
    return refuse(
      `libvirt has a domain ${quote(same.name)} of this UUID`,
      "'virsh domrename' gives it another name; a new domain needs a UUID of its own, or none.",
    );
  return same ?? null;
}

async function define(connection: Connection, domain: Domain, deadlineMs: number): Promise<string> {
  try {
    return await defineXml(connection, domain.text, true, deadlineMs);
  } catch (e) {
    if (!(e instanceof HostdevError) || !isXmlFault(e)) throw e;
    throw new HostdevError('HOSTDEV_DOMAIN_REFUSED', e.message, { data: e.data, cause: e });
  }
}

/** What is kept now. Raises HOSTDEV_DOMAIN_CHANGED, taken back, where something of ours is otherwise. */
async function readBack(
  connection: Connection,
  asked: Domain,
  uuid: string,
  undo: () => Promise<string | null>,
  deadlineMs: number,
): Promise<{ xml: string; others: Difference[] }> {
  let xml: string;
  try {
    xml = await keptXml(connection, uuid, deadlineMs);
  } catch (e) {
    if (!(e instanceof HostdevError)) throw e;
    const text = `${e.message}: it is defined (${uuid}), and was not read back`;
    throw new HostdevError(e.code, text, { data: { ...e.data, pending: true }, cause: e });
  }
  const found = differences(asked, readDomain(xml, `domain ${uuid}`));
  const ours = found.filter((d) => d.ours);
  if (ours.length > 0) {
    const text = `libvirt keeps otherwise what it was given: ${some(ours)}`;
    await undone(undo, new HostdevError('HOSTDEV_DOMAIN_CHANGED', text, { data: { differences: ours } }));
  }
  return { xml, others: found.filter((d) => !d.ours) };
}

/** Undoes, and raises why; HOSTDEV_UNDO_INCOMPLETE where that failed too. */
async function undone(undo: () => Promise<string | null>, why: HostdevError): Promise<never> {
  const failed = await undo();
  if (failed === null) throw why;
  throw new HostdevError('HOSTDEV_UNDO_INCOMPLETE', `${why.message}; and it stays defined: ${failed}`, {
    hint: "'virsh dumpxml --inactive' shows it, 'virsh undefine' takes it away.",
    data: why.data,
    cause: why,
  });
}

/** Brings back what was kept before, or nothing; null when it is so, else why not. */
async function takenBack(
  connection: Connection,
  { uuid, earlier, has }: { uuid: string; earlier: string | null; has: { nvram: boolean; tpm: boolean } },
  daemon: number | null,
  deadlineMs: number,
): Promise<string | null> {
  try {
    if (earlier === null) {
      await undefineDomain(connection, uuid, has, daemon, deadlineMs);
      const left = (await listDomains(connection, deadlineMs)).find((d) => d.uuid === uuid);
      return left?.persistent === true ? 'libvirt still has it' : null;
    }
    await defineXml(connection, earlier, false, deadlineMs);
    return (await keptXml(connection, uuid, deadlineMs)) === earlier ? null : 'it is not as it was before';
  } catch (e) {
    if (!(e instanceof HostdevError)) throw e;
    return e.message;
  }
}

const one = ({ where, attribute, asked, kept }: Difference): string => {
  const thing = attribute === null ? `${where}: ${asked}` : `${where}: ${attribute}='${asked}'`;
  return kept === null ? `${thing} is dropped` : `${thing} is '${kept}' there`;
};

const some = (all: readonly Difference[]): string =>
  `${all.slice(0, MAX_NAMED).map(one).join('; ')}${all.length > MAX_NAMED ? `; and ${all.length - MAX_NAMED} more` : ''}`;

const told = (others: readonly Difference[]): Warning[] =>
  others.length === 0 ? [] : [warning('libvirt-kept', `libvirt keeps otherwise: ${some(others)}`)];
