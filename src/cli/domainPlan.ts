import { createTwoFilesPatch, FILE_HEADERS_ONLY } from 'diff';
import { type DomainPlanRequest, planDomain } from '../actions/domainPlan.ts';
import { HostdevError } from '../errors.ts';
import { safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { readInput } from './input.ts';
import { takeOptions, textOf } from './takeOptions.ts';

const usage = (message: string, hint: string): HostdevError => new HostdevError('HOSTDEV_USAGE', message, { hint });

/** `hostdev domain plan FILE --device DEV…` */
export async function domainPlan(invocation: Invocation): Promise<Answer> {
  const { host, words, own, options } = invocation;
  const [file = '-', ...more] = words;
  const request = await readRequest(invocation, more);
  if (!changesAny(request))
    throw usage(
      "'domain plan' needs something to do",
      'Give --device DEV, --alias NAME:N, --remove DEV or --viommu MODEL.',
    );
  if (own.diff === true && own.fragments === true)
    throw usage('--diff and --fragments are two answers', 'Give one of them.');
  const what = file === '-' ? 'stdin' : file;
  const bytes = await readInput(file);
  const { warnings, ...json } = await planDomain(host, bytes, what, request, options);
  const diff =
    own.diff === true ? unifiedDiff(new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes), json.xml, what) : null;
  const text = own.fragments === true ? json.fragments.map((f) => f.xml).join('\n') : (diff ?? json.xml);
  return { json: diff === null ? json : { ...json, diff }, text: harmless(text), warnings };
}

/**
 * What `diff -u` prints of two texts, for people and for patch(1); '' when they are the same. `name`, quoted as there,
 * stands for both.
 */
const unifiedDiff = (before: string, after: string, name: string): string =>
  before === after
    ? ''
    : createTwoFilesPatch(name, name, before, after, undefined, undefined, {
        context: 3,
        headerOptions: FILE_HEADERS_ONLY,
      });

/** XML goes byte for byte into a file or pipe; on a terminal nothing in it may command it. */
export const harmless = (text: string): string => (process.stdout.isTTY ? safeBlock(text) : text);

const changesAny = ({ add, pick, remove, viommu }: DomainPlanRequest): boolean =>
  add.length > 0 || pick !== null || remove.length > 0 || viommu !== null;

/** What is to be changed in a domain, from the options of `domain plan` and `domain define`. Raises HOSTDEV_USAGE. */
export async function readRequest(invocation: Invocation, more: readonly string[]): Promise<DomainPlanRequest> {
  const { own, lists, words, inventory } = invocation;
  const { device = [], remove = [], alias = [] } = lists;
  if (inventory === '-' && (words[0] ?? '-') === '-')
    throw usage('The domain and --inventory are both stdin', 'Give one of them as a file.');
  const idle = ['numa', 'policy', 'sockets', 'group-policy', 'spread'].find((n) => own[n] !== undefined);
  if (alias.length === 0 && idle !== undefined)
    throw usage(`--${idle} is about devices from the pools`, 'Give --alias NAME:N too.');
  const request: DomainPlanRequest = {
    add: [...device, ...more],
    remove,
    ...(await readPools(invocation, alias)),
    ...takeOptions(own),
    viommu: textOf(own.viommu) ?? null,
    connect: invocation.connect,
    libvirt: textOf(own.libvirt) ?? null,
    qemu: textOf(own.qemu) ?? null,
  };
  checkTogether(request, own);
  return request;
}

/** Loaded only where they are asked for: the pools bring a layer of their own with them. */
async function readPools(
  invocation: Invocation,
  alias: readonly string[],
): Promise<Pick<DomainPlanRequest, 'pick' | 'setup'>> {
  if (alias.length === 0 && invocation.inventory === null)
    return { pick: null, setup: { config: [], inventory: null } };
  const [{ setupOptions }, { readWish }] = await Promise.all([import('./setupInput.ts'), import('./wishInput.ts')]);
  const pick = alias.length === 0 ? null : readWish(alias.join(','), invocation.own);
  return { pick, setup: await setupOptions(invocation) };
}

/** Options that mean nothing together are an error, not silence. */
function checkTogether(request: DomainPlanRequest, own: Invocation['own']): void {
  const forAdded = ['managed', 'driver', 'rom', 'boot', 'nvme', 'one-slot', 'vnic', 'unassigned-peers'];
  const isAdding = request.add.length > 0 || request.pick !== null;
  const idle = isAdding ? undefined : forAdded.find((n) => own[n] !== undefined);
  if (idle !== undefined)
    throw usage(`--${idle} is about a device that is put in`, 'Give --device DEV or --alias NAME:N too.');
  const { nic } = request;
  if (nic === null) return;
  if (nic.shape === 'direct' || nic.shape === 'physical') return;
  const foreign = ['managed', 'driver', 'unassigned-peers'].find((n) => own[n] !== undefined);
  if (foreign !== undefined)
    throw usage(`--${foreign} means nothing for --vnic ${nic.vnic}`, 'The function stays on its host driver.');
}
