import type { VmallocArea } from '../abi/index.js';
import { type InspectContext, noteClaims } from './context.js';

/** Claims the pages of a vmalloc area: its chunks, each a page, and its pieces, each a range of 2^order pages. */
export function claimVmalloc(context: InspectContext, owner: string, what: string, area: VmallocArea): void {
  noteClaims(
    context,
    (claims) => [
      ...area.chunks.flatMap((chunk) => claims.pages(owner, `a chunk of ${what}`, chunk, 1)),
      ...area.pieces.flatMap((piece) => claims.pages(owner, `a piece of ${what}`, piece, 2 ** area.order)),
    ],
    'vmalloc areas',
  );
}
