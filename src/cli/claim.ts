import { tryClaim } from '../actions/claim.ts';
import { HostdevError } from '../errors.ts';
import { safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { setupOptions } from './setupInput.ts';
import { table } from './table.ts';
import { readWish } from './wishInput.ts';

/** `hostdev claim REQUEST -n [--numa N,…] [--sockets N:S,…] [--policy P] [--group-policy none|isolate] [--spread]` */
export async function claim(invocation: Invocation): Promise<Answer> {
  if (!invocation.options.dryRun)
    throw new HostdevError('HOSTDEV_USAGE', 'Claims are not kept yet: that comes with a later release', {
      hint: 'Give -n to see which devices the request would get.',
    });
  const wish = readWish(invocation.words[0] ?? '', invocation.own);
  const { warnings, ...json } = await tryClaim(
    invocation.host,
    await setupOptions(invocation),
    wish,
    invocation.connect,
  );
  const rows = json.requests.flatMap((r) =>
    r.devices.map((d) => [
      safeBlock(r.alias_name ?? '-'),
      d.address,
      `${d.vendor_id ?? '????'}:${d.product_id ?? '????'}`,
      d.dev_type.replace('type-', ''),
      `${d.numa_node ?? '-'}`,
      safeBlock(d.provider ?? '-'),
    ]),
  );
  const text =
    rows.length === 0
      ? 'It asks for no device\n'
      : table(['ALIAS', 'ADDRESS', 'IDS', 'TYPE', 'NUMA', 'PROVIDER'], rows);
  return { json, text, warnings };
}
