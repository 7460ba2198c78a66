import { showPlacement } from '../actions/placementShow.ts';
import type { Answer, Invocation } from './command.ts';
import { setupOptions } from './setupInput.ts';
import { plain, table } from './table.ts';

/** `hostdev placement show` */
export async function placementShow(invocation: Invocation): Promise<Answer> {
  const { warnings, ...json } = await showPlacement(invocation.host, await setupOptions(invocation));
  const rows = Object.entries(json.providers).flatMap(([name, { inventory, traits }]) =>
    Object.entries(inventory).map(([cls, { total, reserved }]) => [
      plain(name),
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
