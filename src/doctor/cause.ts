/** One thing that `group why` names. */
import { advice, type Finding } from '../text/finding.ts';
import { CAUSES, type CauseId } from './table.ts';

export type Cause = Finding & {
  id: CauseId;
  /** True when it keeps the device from a guest as things are: an error. */
  blocks: boolean;
  /** What to change, as in `fix`; null when nothing has to be. */
  change: string | null;
};

/** A cause with the table's verdict. */
export const because = (id: CauseId, object: string, cause: string, change: string | null): Cause => ({
  id,
  severity: CAUSES[id].blocks ? 'error' : 'note',
  object,
  cause,
  fix: change === null ? [] : [advice(object, change)],
  blocks: CAUSES[id].blocks,
  change,
});
