import { readRecord } from '../actions/log.ts';
import type { RecordLine } from '../binding/record.ts';
import { describeState } from '../binding/state.ts';
import { safe, safeBlock } from '../text/safe.ts';
import type { Answer, Invocation } from './command.ts';
import { table } from './table.ts';

const HEADER = ['TIME', 'DEVICE', 'BY', 'WHO', 'BEFORE', 'AFTER', 'RESULT'];

/** `hostdev log [DEV]` */
export function log({ host, words }: Invocation): Answer {
  const { device, records, warnings } = readRecord(host, words[0] ?? null);
  const nothing = device === null ? 'Nothing is on record\n' : `Nothing is on record of ${device}\n`;
  const text = records.length === 0 ? nothing : safeBlock(table(HEADER, records.map(row)));
  return { json: { records }, text, warnings };
}

const row = (r: RecordLine): string[] => [
  safe(r.time),
  safe(r.device),
  safe(r.verb ?? '-'),
  safe(whoText(r)),
  r.before === null ? '-' : safe(describeState(r.before)),
  r.after === null ? '-' : safe(describeState(r.after)),
  safe(resultText(r)),
];

/** A guest by its name; a person by the user that he logged in as, or was before sudo. */
function whoText(r: RecordLine): string {
  if (r.guest !== null || r.owner.startsWith('domain:')) return `domain ${r.guest ?? r.owner.slice('domain:'.length)}`;
  const user = r.loginuid ?? r.sudo_uid ?? r.uid;
  return user === null ? r.owner : `${r.owner} (uid ${user})`;
}

function resultText(r: RecordLine): string {
  const vfs = r.vfs === null || r.vfs.before === r.vfs.after ? [] : [`${r.vfs.before} -> ${r.vfs.after} VFs`];
  const type = r.vgpu_type === null ? [] : [`vGPU type ${r.vgpu_type.before} -> ${r.vgpu_type.after}`];
  const why = r.reason === null ? '' : `: ${r.reason}`;
  return [
    `${r.outcome}${r.recovered ? ' (recovery)' : ''}${why}`,
    ...vfs,
    ...type,
    ...r.lifted.map((l) => `allowed ${l.guard}: ${l.reason}`),
  ].join('; ');
}
