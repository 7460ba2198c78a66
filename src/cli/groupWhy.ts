import { explainDevice } from '../actions/groupWhy.ts';
import { belowText } from '../binding/losses.ts';
import { CAUSES } from '../doctor/table.ts';
import { EXIT } from '../errors.ts';
import { safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { colours, table } from './table.ts';

/** `hostdev group why DEV`: exit 3 when the device could not be given to a guest as things are. */
export async function groupWhy({ host, words }: Invocation): Promise<Answer> {
  const { why: w, warnings } = await explainDevice(host, words[0] ?? '');
  const { bad, good, warn } = colours(process.stdout);
  const place = w.iommu_group === null ? 'in no IOMMU group' : `in IOMMU group ${w.iommu_group}`;
  const lines = [
    `${w.address}, ${place}: ${w.assignable ? good('assignable') : bad('not assignable')}\n`,
    ...w.causes.map((c) =>
      [
        `${c.blocks ? bad(`blocked: ${c.id}`) : warn(`because: ${c.id}`)}: ${safeBlock(c.cause)}`,
        `  ${CAUSES[c.id].text}`,
        ...(c.change === null ? [] : [`  To change: ${safeBlock(c.change)}`]),
      ]
        .join('\n')
        .concat('\n'),
    ),
    belowText(w.device) === '' ? '' : `The host would lose ${safeBlock(belowText(w.device))}\n`,
    table(
      ['IN THE GROUP', 'DRIVER', 'BLOCKS', 'THE HOST WOULD LOSE'],
      w.peers.map((p) => [p.address, p.driver ?? '-', p.blocks ? 'yes' : 'no', safeBlock(belowText(p)) || '-']),
    ),
    `Reset: ${w.reset.methods === null ? 'not measured' : w.reset.methods.join(' ') || 'none'}${w.reset.scope.length > 0 ? `, hits ${w.reset.scope.join(' ')}` : ''}\n`,
    ...w.reserved_regions.map((r) => `Reserved: ${r.start}-${r.end} ${r.type}\n`),
    ...w.not_measured.map((u) => `not measured: ${safeBlock(u.object)}: ${safeBlock(u.reason)}\n`),
  ];
  return { json: { why: w }, text: lines.join(''), warnings, exit: w.assignable ? EXIT.done : EXIT.no };
}
