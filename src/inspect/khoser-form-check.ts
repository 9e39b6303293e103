import { KHO_V1, KHO_V1_6_16, walkKhoserMem } from '../abi/index.js';
import { KhoError } from '../errors.js';
import { FolioIndex, FolioRuns, type PhysicalAddress } from '../memblock/index.js';
import type { InspectContext } from './context.js';

/**
 * Says so if a chunk list that was read with bitmaps of 32768 bits might be one of 4096: nothing in memory tells which
 * ({@link khoserBitmapBits}). It cannot be where a blob or a `reserve_mem` area would not be
 * preserved then, and it is all the same where nothing is marked but in the first 4096 bits of each bitmap.
 */
export function noteKhoserForm(
  { memory, findings }: InspectContext,
  first: PhysicalAddress,
  objects: FolioIndex,
  mustHold: readonly { readonly address: PhysicalAddress; readonly size: number }[],
): void {
  const runs = new FolioRuns();
  const small = KHO_V1_6_16.bitmapBits ?? 4096;
  walkKhoserMem(memory, first, small, (address, order) => runs.add(address, order), { onDamage: () => {} });
  const index = new FolioIndex(runs);
  const more = objects.count - index.count;
  if (more === 0) return;
  // Of no bytes is an area below one page.
  if (mustHold.some(({ address, size }) => size > 0 && !index.covers(address, size))) return;
  const text =
    `nothing in memory tells how large the bitmaps of preserved memory are: they were read as ${KHO_V1.releases} has them; ` +
    `as ${KHO_V1_6_16.releases} has them, ${more} of the ${objects.count} objects are not there (--profile ${KHO_V1_6_16.name})`;
  findings.add('info', new KhoError('KHO_EIMAGE', text, { address: first }));
}
