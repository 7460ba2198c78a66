import { showPlacement } from '../actions/placementShow.ts';
import { HostdevError } from '../errors.ts';
import { quote, safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { setupOptions } from './setupInput.ts';
import { table } from './table.ts';

/** Placement takes 200 characters for a provider's name, and 13 are "_dddd:bb:ss.f". */
const HOSTNAME = /^[\x21-\x7e]{1,187}$/;

/** `hostdev placement show [--hypervisor-hostname NAME]` */
export async function placementShow(invocation: Invocation): Promise<Answer> {
  const given = invocation.own['hypervisor-hostname'];
  const hostname = typeof given === 'string' ? given : null;
  if (hostname !== null && !HOSTNAME.test(hostname))
    throw new HostdevError('HOSTDEV_USAGE', `--hypervisor-hostname ${quote(hostname)} is no name of a host`);
  const { host, connect } = invocation;
  const { warnings, ...json } = await showPlacement(host, await setupOptions(invocation), hostname, connect);
  const rows = Object.entries(json.providers).flatMap(([name, { inventory, traits }]) =>
    Object.entries(inventory).map(([cls, { total, reserved }]) => [
      safeBlock(name),
      cls,
      `${total}`,
      `${reserved ?? 0}`,
      traits.join(' '),
    ]),
  );
  const left = json.not_reported.length;
  const text = table(['PROVIDER', 'CLASS', 'TOTAL', 'RESERVED', 'TRAITS'], rows);
  return {
    json,
    text: `${text === '' ? 'No provider\n' : text}${left === 0 ? '' : `${left} ${left === 1 ? 'device is' : 'devices are'} not reported: physical_network\n`}`,
    warnings,
  };
}
