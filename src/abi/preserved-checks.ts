import { KhoError } from '../errors.js';
import { type Folio, type FolioIndex, folioEnd, hex, PAGE_SIZE, type PhysicalAddress } from '../memblock/index.js';
import type { ScratchEntry } from './scratch-array.js';

/** What the tracker says, and all that it must agree with. */
export interface PreservedState {
  /** The preserved objects. */
  readonly objects: FolioIndex;
  readonly scratch: readonly ScratchEntry[];
  /** The pages of what lists preserved memory. */
  readonly trackerPages: readonly PhysicalAddress[];
  /** What must be preserved: the root FDT, and what it points to. */
  readonly blobs: readonly { readonly name: string; readonly address: PhysicalAddress; readonly size: number }[];
  /** Whether a range is memory, by the firmware's map. */
  readonly isMemory: (address: PhysicalAddress, size: number) => boolean;
}

/**
 * What is wrong with preserved memory, each finding a KHO_ETRACKER with an address: objects that overlap, that lie in
 * scratch (the next kernel boots there), outside of memory, or on the tracker's own pages; blobs that were not preserved.
 * Early boot refuses the first, inspect lists them all. Costs go by runs of objects, not by objects, if nothing is wrong.
 */
export function* preservedProblems(state: PreservedState): Generator<KhoError, void> {
  const { objects, scratch, trackerPages, blobs, isMemory } = state;
  for (const [earlier, later] of objects.overlaps()) {
    const first = `${hex(earlier.address)} (order ${earlier.order})`;
    yield damaged(later.address, `the preserved objects at ${first} and ${hex(later.address)} overlap`);
  }
  for (const area of scratch) {
    for (const index of objects.overlapping(area.address, area.size)) {
      const { address } = objects.folio(index);
      yield damaged(
        address,
        `the preserved object at ${hex(address)} lies in the scratch area at ${hex(area.address)}`,
      );
    }
  }
  for (let run = 0; run < objects.runCount; run++) {
    const start = objects.runStart(run);
    if (isMemory(start, objects.runEnd(run) - start)) continue;
    for (const { address, order } of notMemory(objects, objects.runFirst(run), objects.runLength(run), isMemory)) {
      yield damaged(address, `the preserved object at ${hex(address)} (order ${order}) is not in memory`);
    }
  }
  for (const page of trackerPages) {
    for (const index of objects.overlapping(page, PAGE_SIZE)) {
      const { address } = objects.folio(index);
      yield damaged(address, `the preserved object at ${hex(address)} holds the tracker's own page at ${hex(page)}`);
    }
  }
  for (const { name, address, size } of blobs) {
    if (size > 0 && objects.covers(address, size)) continue;
    yield damaged(
      address,
      `'${name}' at ${hex(address)} (${size} bytes) is not preserved: the tracker is damaged, or the root FDT is`,
    );
  }
}

/**
 * Which of `count` neighbours of one order are not memory. Those that are, in whatever regions, are asked for in halves: a
 * run may cross the border of two regions between two of its objects.
 */
function* notMemory(
  objects: FolioIndex,
  first: number,
  count: number,
  isMemory: PreservedState['isMemory'],
): Generator<Folio, void> {
  const folio = objects.folio(first);
  if (isMemory(folio.address, count * (folioEnd(folio) - folio.address))) return;
  if (count === 1) {
    yield folio;
    return;
  }
  const half = Math.floor(count / 2);
  yield* notMemory(objects, first, half, isMemory);
  yield* notMemory(objects, first + half, count - half, isMemory);
}

function damaged(address: PhysicalAddress, text: string): KhoError {
  return new KhoError('KHO_ETRACKER', text, { address });
}
