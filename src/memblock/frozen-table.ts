import { KhoError } from '../errors.js';
import { PAGE_SIZE } from './address.js';
import { alignToLine } from './extent-layout.js';
import { FROZEN_DIGESTS, FROZEN_FIRST_PAGES, FROZEN_PAGES, FROZEN_SHARDS, FROZEN_STATES } from './frozen-layout.js';
import { FrozenShard } from './frozen-shard.js';
import { LINES_PER_PAGE } from './line-digest.js';
import type { SharedPhysicalMemory } from './physical-memory.js';
import type { ShardExtents } from './shard-extents.js';

/**
 * Digests of the pages that drivers have frozen, in shared memory: one for each 64-byte line, so that a write that comes
 * too late is found, and where. It takes 260 bytes for each page that shards may allocate. frozen-layout.ts draws it and
 * says who may do what when.
 */
export class FrozenTable {
  /** The shared buffer, for {@link attach} in another thread. */
  readonly handle: SharedArrayBuffer;
  readonly #words: Int32Array;

  private constructor(handle: SharedArrayBuffer) {
    this.handle = handle;
    this.#words = new Int32Array(handle);
  }

  /**
   * A table for shards that may allocate so many pages each; all pages are open. KHO_ENOMEM when this machine refuses to
   * reserve the buffer.
   */
  static create(shards: readonly { readonly pages: number }[]): FrozenTable {
    const pages = shards.reduce((sum, shard) => sum + shard.pages, 0);
    const states = alignToLine(FROZEN_FIRST_PAGES + shards.length);
    const digests = alignToLine(states + pages);
    const table = new FrozenTable(sharedBuffer((digests + pages * LINES_PER_PAGE) * 4, pages));
    const words = table.#words;
    words[FROZEN_SHARDS] = shards.length;
    words[FROZEN_PAGES] = pages;
    words[FROZEN_STATES] = states;
    words[FROZEN_DIGESTS] = digests;
    let first = 0;
    for (const [shard, { pages: count }] of shards.entries()) {
      words[FROZEN_FIRST_PAGES + shard] = first;
      first += count;
    }
    return table;
  }

  /** The same table in another thread. */
  static attach(handle: SharedArrayBuffer): FrozenTable {
    return new FrozenTable(handle);
  }

  /** Makes the system commit the buffer now: the first touch of a page takes longer than its digests. */
  touch(): void {
    const words = this.#words;
    // Right behind create(): nobody else has the table yet.
    for (let index = words[FROZEN_STATES]; index < words.length; index += PAGE_SIZE / 4) words[index] = 0;
  }

  /**
   * The digests of the pages of one shard. `shared`: other threads may write to them at the same time, because the
   * instance has more shards than this one. KHO_ENOENT if there is no such shard.
   */
  shard(memory: SharedPhysicalMemory, { shard, ranges }: ShardExtents, shared: boolean): FrozenShard {
    const words = this.#words;
    if (!(shard < words[FROZEN_SHARDS])) throw new KhoError('KHO_ENOENT', `no shard ${shard} is known`, { shard });
    return new FrozenShard(memory, ranges, {
      states: words.subarray(words[FROZEN_STATES], words[FROZEN_STATES] + words[FROZEN_PAGES]),
      digests: words.subarray(words[FROZEN_DIGESTS]),
      firstPage: words[FROZEN_FIRST_PAGES + shard],
      shared,
    });
  }
}

function sharedBuffer(size: number, pages: number): SharedArrayBuffer {
  try {
    return new SharedArrayBuffer(size);
  } catch (cause) {
    const text = `this machine refuses ${size} bytes of shared memory for the digests of ${pages} pages`;
    throw new KhoError('KHO_ENOMEM', text, { size }, { cause });
  }
}
