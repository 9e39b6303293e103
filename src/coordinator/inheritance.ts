import { after, type Extent, type Folio, PAGE_SIZE, type PageRange } from '../memblock/index.js';
import type { RangeOwner } from './run-record.js';

/** Names the pages of a shard, or its guest memory, across kernels. */
export type ShardName = Pick<RangeOwner, 'kind' | 'name' | 'instance' | 'shard'>;

/** The extents that a shard was granted under the previous kernel, and of which its driver claimed something. */
export interface InheritedExtents {
  /** Pages that the shard declared: those of all its ranges. */
  readonly pages: number;
  readonly ranges: readonly Extent[];
  /** The pages with content of the driver's, ascending. The others were not handed over, or were discarded. */
  readonly claimed: readonly PageRange[];
}

/**
 * The memory that the drivers of a host have from the kernel before. It is never in the page allocator: as long as this
 * kernel runs it is that of its driver, whether or not the driver hands over again. A cold-booted host has none.
 */
export class Inheritance {
  readonly #shards: ReadonlyMap<string, InheritedExtents>;
  readonly #lent = new Set<InheritedExtents>();

  constructor(shards: Iterable<readonly [ShardName, InheritedExtents]> = []) {
    this.#shards = new Map(Array.from(shards, ([shard, extents]) => [keyOf(shard), extents]));
  }

  /** What there is, by shards. */
  get extents(): InheritedExtents[] {
    return [...this.#shards.values()];
  }

  /**
   * A shard's extents for a run, if it declares as many pages as it did before, and they are whole folios of `order`. To one
   * run at a time: another one that has a shard of the same name gets none.
   */
  lend(shard: ShardName, pages: number, order = 0): InheritedExtents | undefined {
    const extents = this.#shards.get(keyOf(shard));
    if (extents === undefined || extents.pages !== pages || this.#lent.has(extents)) return undefined;
    const folio = 2 ** order;
    const isWhole = ({ base, pages: count }: Extent) => base % (folio * PAGE_SIZE) === 0 && count % folio === 0;
    if (!extents.ranges.every(isWhole)) return undefined;
    this.#lent.add(extents);
    return extents;
  }

  /** The run is over. */
  giveBack(extents: InheritedExtents): void {
    this.#lent.delete(extents);
  }
}

/** Objects as ranges of pages, ascending, neighbours joined. */
export function joinObjects(objects: readonly Folio[]): PageRange[] {
  const joined: PageRange[] = [];
  for (const { address, order } of [...objects].sort((a, b) => a.address - b.address)) {
    const last = joined.at(-1);
    if (last !== undefined && last.address + last.pages * PAGE_SIZE === address) {
      joined[joined.length - 1] = { address: last.address, pages: last.pages + 2 ** order };
    } else {
      joined.push({ address, pages: 2 ** order });
    }
  }
  return joined;
}

/** The parts of `extent` that are in none of `claimed`, which is ascending. */
export function* unclaimedParts({ base, pages }: Extent, claimed: readonly PageRange[]): Generator<PageRange> {
  const end = base + pages * PAGE_SIZE;
  let at = base;
  for (const range of claimed) {
    const stop = after(range.address, range.pages * PAGE_SIZE);
    if (stop <= at || range.address >= end) continue;
    if (range.address > at) yield { address: at, pages: (range.address - at) / PAGE_SIZE };
    at = stop;
  }
  if (at < end) yield { address: at, pages: (end - at) / PAGE_SIZE };
}

function keyOf({ kind, name, instance = '', shard = 0 }: ShardName): string {
  return `${kind}/${name}/${instance}/${shard}`;
}
