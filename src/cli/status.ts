import { readStatus } from '../actions/status.ts';
import { EXIT } from '../errors.ts';
import type { Answer, Invocation } from './command.ts';
import { colours, plain, table } from './table.ts';

/** `hostdev status`: exit 3 when something is not as the books say. */
export async function status({ host }: Invocation): Promise<Answer> {
  const s = await readStatus(host);
  const { bad, warn } = colours(process.stdout);
  const rows = s.bindings.map((b) => [
    b.address,
    plain(b.claims.map((c) => c.name ?? c.owner).join(', ') || '-'),
    plain(b.driver ?? '-'),
    b.before.driver ?? '-',
    b.drift === null ? '' : bad(b.drift),
  ]);
  const lines = [
    s.iommu.on
      ? `IOMMU on${s.iommu.units.length > 0 ? ` (${s.iommu.units.join(', ')})` : ''}\n`
      : warn(`IOMMU off: ${s.iommu.reason}\n`),
    rows.length === 0 ? 'hostdev has bound no device\n' : table(['ADDRESS', 'FOR', 'DRIVER', 'BEFORE', 'DRIFT'], rows),
    ...s.journal.map((j) =>
      bad(
        `unfinished ${j.kind} ${j.id} for ${j.owner} (${j.state})${j.left.length > 0 ? `: ${j.left.join('; ')}` : ''}\n`,
      ),
    ),
  ];
  const drifted = s.bindings.some((b) => b.drift !== null) || s.journal.length > 0;
  return { json: s, text: lines.join(''), exit: drifted ? EXIT.no : EXIT.done };
}
