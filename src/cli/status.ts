import { type BindingStatus, readStatus, type Status, unreadWarnings } from '../actions/status.ts';
import { mendStatus } from '../actions/statusMend.ts';
import { whoHas } from '../actions/whoHas.ts';
import { isGuest } from '../binding/books.ts';
import { badFileText } from '../binding/session.ts';
import { EXIT } from '../errors.ts';
import { safeBlock } from '../text/safe.ts';
import { warning } from '../text/warning.ts';
import type { Answer, Invocation } from './command.ts';
import { colours, table } from './table.ts';
import { vitalLines } from './vitalLines.ts';

const NO_JOURNAL = 'what is unfinished is not known: the journal is for root to read';

/** `hostdev status [--fix]`: exit 3 when something is not as the books say. */
export async function status({ host, own, options, connect }: Invocation): Promise<Answer> {
  const mended = own.fix === true ? await mendStatus(host, connect, options) : [];
  const guests = await whoHas(host, connect);
  const s = await readStatus(host, guests);
  const journal = s.journal ?? [];
  const unfinished = journal.filter((j) => j.in_hand === null);
  const { bad, warn } = colours(process.stdout);
  const rows = s.bindings.map((b) => [
    b.address,
    safeBlock(forWhom(b) || '-'),
    safeBlock(b.driver ?? '-'),
    b.before.driver ?? '-',
    b.drift === null ? '' : bad(b.drift),
  ]);
  const lines = [
    ...mended.map((m) => `${safeBlock(m.text)}\n`),
    s.iommu === null
      ? warn('IOMMU: not known, see below\n')
      : s.iommu.on
        ? `IOMMU on${s.iommu.units.length > 0 ? ` (${s.iommu.units.join(', ')})` : ''}\n`
        : warn(`IOMMU off: ${s.iommu.reason}\n`),
    rows.length === 0 ? 'hostdev has bound no device\n' : table(['ADDRESS', 'FOR', 'DRIVER', 'BEFORE', 'DRIFT'], rows),
    ...s.bindings.flatMap((b) => (b.advice === null ? [] : `${b.address}: ${safeBlock(b.advice)}\n`)),
    ...s.unheld.map((u) => {
      const is = `${u.address}: guest ${safeBlock(u.guest.name)} has it`;
      return u.drift
        ? bad(`${is} (managed='no'), and no hold of its is in the books: 'hostdev status --fix' notes it\n`)
        : `${is}; libvirt bound it and gives it back\n`;
    }),
    ...wishLine(s.wishes),
    vitalLines(s.initramfs_vital),
    ...s.stuck.map((q) =>
      bad(
        `${q.address} hangs in the kernel at ${q.path} since ${q.since}${q.holders.map((h) => `; ${safeBlock(h)}`).join('')}\n`,
      ),
    ),
    ...s.bad_files.map((f) => bad(`${safeBlock(badFileText(f))}\n`)),
    ...journal.flatMap((j) =>
      j.in_hand === null ? [] : `process ${j.in_hand} is at work: ${j.kind} for ${j.owner}\n`,
    ),
    ...unfinished.map((j) =>
      bad(
        `unfinished ${j.kind} ${j.id} for ${j.owner} (${j.state})${j.left.length > 0 ? `: ${j.left.join('; ')}` : ''}\n`,
      ),
    ),
    ...(unfinished.length === 0
      ? []
      : ["'hostdev status --fix' finishes what can be finished, 'hostdev journal undo' or resume says which way\n"]),
    ...(s.bad_files.length === 0
      ? []
      : [
          'Use the hostdev that wrote such a file, or look at it and remove it; a device whose book is gone goes back with --to-host\n',
        ]),
  ];
  // Of a dry run what counts is what the real run would leave.
  const isMeant = (address: string | null): boolean =>
    address !== null && mended.some((m) => m.would && m.address === address);
  const left =
    own.fix === true && options.dryRun
      ? mended.some((m) => !m.would && !isMeant(m.address))
      : s.bindings.some((b) => b.drift !== null) || s.unheld.some((u) => u.drift) || unfinished.length > 0;
  const drifted = left || s.stuck.length + s.bad_files.length > 0;
  const exit = mended.some((m) => m.by === 'guard')
    ? EXIT.refused
    : own.fix === true && s.bindings.some((b) => b.holds.some((h) => h.plug !== undefined) && !isMeant(b.address))
      ? EXIT.timedOut
      : drifted
        ? EXIT.no
        : s.journal === null
          ? EXIT.failed
          : EXIT.done;
  return {
    json: own.fix === true ? { ...s, mended } : s,
    text: lines.join(''),
    exit,
    warnings: [
      ...unreadWarnings(host),
      ...guests.warnings,
      ...(s.journal === null ? [warning('not-measured', NO_JOURNAL)] : []),
    ],
  };
}

const wishLine = (wishes: Status['wishes']): string[] =>
  wishes === null || wishes.not_met.length === 0
    ? []
    : [`${wishes.not_met.length} of ${wishes.total} wishes are not met: 'hostdev boot status' says why\n`];

/** The holds' names; a process that has the device and is none of them is named too. */
function forWhom({ holds, users }: BindingStatus): string {
  const names = holds.map((h) => `${h.name ?? h.owner}${h.plug === undefined ? '' : ` (${h.plug.state})`}`);
  const others = users
    .filter((u) => !holds.some((h) => isGuest(h) && (u.domain === null || u.domain === h.name)))
    .map((u) => u.domain ?? `process ${u.pid} (${u.command})`);
  return [...names, ...new Set(others)].join(', ');
}
