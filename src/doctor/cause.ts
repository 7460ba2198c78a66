/** One thing that `group why` names. */
import { CAUSES, type CauseId } from './table.ts';

export type Cause = {
  id: CauseId;
  /** True when it keeps the device from a guest as things are. */
  blocks: boolean;
  /** The device, bridge or file that it lies in. */
  object: string;
  cause: string;
  /** What to change; null when nothing has to be. */
  change: string | null;
};

/** A cause with the table's verdict. */
export const because = (id: CauseId, object: string, cause: string, change: string | null): Cause => ({
  id,
  blocks: CAUSES[id].blocks,
  object,
  cause,
  change,
});
