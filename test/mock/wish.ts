/** A claim's wish with nothing said but what is asked for. */
import type { ClaimWish } from '../../src/actions/claim.ts';

export const wish = (request: string, more: Partial<ClaimWish> = {}): ClaimWish => ({
  request,
  policy: null,
  place: { numaCells: [], hostCells: [] },
  isolate: false,
  spread: false,
  ...more,
});
