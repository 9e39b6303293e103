import { KhoError } from '../errors.js';
import { hex, PAGE_SIZE, PHYS_ADDR_MAX } from './address.js';
import {
  alignToLine,
  DECLARED,
  EXTENT_COUNT,
  EXTENT_FIELDS,
  EXTENT_UNITS,
  EXTENTS,
  FIRST,
  FREE,
  HEADS,
  RECORD_OFFSETS,
  SHARD_COUNT,
  UNIT_ORDER,
  USED,
} from './extent-layout.js';
import { type Extent, MAX_FOLIO_ORDER, ShardExtents } from './shard-extents.js';

/** What a shard declared, and what it was granted for that. */
export interface ShardGrant {
  /** Pages that the shard declared: its extents have exactly as many. */
  readonly pages: number;
  readonly ranges: readonly Extent[];
  /** The shard gets multiples of 2^order aligned pages, and no less; 0 unless said. For guest memory, in large folios. */
  readonly order?: number;
}

/**
 * The pages that each shard may allocate, in shared memory; extent-layout.ts draws it.
 *
 * A shard's prepare and its serialize may run on different threads, but never at the same time. No field is accessed
 * with Atomics: whoever hands a shard over does it with a message, and what was written before the message was sent is
 * seen after it was received. Different shards may be used at the same time on different threads. So what a shard
 * gets depends on its own calls alone, never on workers or timing.
 */
export class ExtentTable {
  /** The shared buffer, for {@link attach} in another thread. */
  readonly handle: SharedArrayBuffer;
  readonly #words: Int32Array;

  private constructor(handle: SharedArrayBuffer) {
    this.handle = handle;
    this.#words = new Int32Array(handle);
  }

  /**
   * A table with one record per shard, nothing allocated. KHO_EINVAL, with the shard, unless its ranges are multiples of
   * its order, overlap no other range of any shard, and add up to the pages that it declared.
   */
  static create(shards: readonly ShardGrant[]): ExtentTable {
    checkGrants(shards);
    const offsets: number[] = [];
    let size = alignToLine(RECORD_OFFSETS + shards.length);
    for (const shard of shards) {
      offsets.push(size);
      size = alignToLine(size + recordWords(shard));
    }
    const table = new ExtentTable(new SharedArrayBuffer(size * 4));
    const words = table.#words;
    words[SHARD_COUNT] = shards.length;
    words.set(offsets, RECORD_OFFSETS);
    shards.forEach((shard, index) => {
      writeRecord(words, offsets[index], shard);
    });
    return table;
  }

  /** The same table in another thread. */
  static attach(handle: SharedArrayBuffer): ExtentTable {
    return new ExtentTable(handle);
  }

  get shards(): number {
    return this.#words[SHARD_COUNT];
  }

  /** What shard number `shard` may allocate from. KHO_ENOENT if there is no such shard. */
  extent(shard: number): ShardExtents {
    if (!Number.isInteger(shard) || shard < 0 || shard >= this.shards) {
      throw new KhoError('KHO_ENOENT', `no extents were granted to shard ${shard}`, { shard });
    }
    return new ShardExtents(this.#words, this.#words[RECORD_OFFSETS + shard], shard);
  }
}

function bitmapWords(units: number): number {
  return Math.ceil(units / 32);
}

function recordWords({ ranges, order = 0 }: ShardGrant): number {
  return ranges.reduce(
    (sum, { pages }) => sum + 2 * bitmapWords(pages / 2 ** order),
    EXTENTS + ranges.length * EXTENT_FIELDS,
  );
}

function writeRecord(words: Int32Array, record: number, { pages, ranges, order = 0 }: ShardGrant): void {
  words[record + UNIT_ORDER] = order;
  words[record + DECLARED] = pages / 2 ** order;
  words[record + FREE] = pages / 2 ** order;
  words[record + EXTENT_COUNT] = ranges.length;
  let extent = record + EXTENTS;
  let bitmap = extent + ranges.length * EXTENT_FIELDS;
  for (const range of [...ranges].sort((a, b) => a.base - b.base)) {
    const first = range.base / (PAGE_SIZE * 2 ** order);
    const units = range.pages / 2 ** order;
    words[extent + FIRST] = first; // keeps the low 32 bits
    words[extent + FIRST + 1] = Math.floor(first / 2 ** 32);
    words[extent + EXTENT_UNITS] = units;
    words[extent + USED] = bitmap;
    words[extent + HEADS] = bitmap + bitmapWords(units);
    bitmap += 2 * bitmapWords(units);
    extent += EXTENT_FIELDS;
  }
}

function checkGrants(shards: readonly ShardGrant[]): void {
  const all: (Extent & { shard: number; order: number })[] = [];
  shards.forEach(({ pages, ranges, order = 0 }, shard) => {
    if (!Number.isInteger(order) || order < 0 || order > MAX_FOLIO_ORDER) {
      throw new KhoError('KHO_EINVAL', `shard ${shard} has memory of order ${order}`, { shard });
    }
    const granted = ranges.reduce((sum, range) => sum + range.pages, 0);
    if (granted !== pages) {
      throw new KhoError('KHO_EINVAL', `shard ${shard} declared ${pages} pages, but was granted ${granted}`, { shard });
    }
    all.push(...ranges.map((range) => ({ ...range, shard, order })));
  });
  all.sort((a, b) => a.base - b.base);
  let end = 0;
  let before = { base: 0, shard: 0 };
  for (const { base, pages, shard, order } of all) {
    const bytes = pages * PAGE_SIZE;
    const units = pages / 2 ** order;
    if (
      base < 0 ||
      base % (PAGE_SIZE * 2 ** order) !== 0 ||
      !Number.isInteger(units) ||
      units <= 0 ||
      units >= 2 ** 31 ||
      base + bytes > PHYS_ADDR_MAX
    ) {
      const text = `the extent of ${pages} pages at ${hex(base)} for shard ${shard} is malformed`;
      throw new KhoError('KHO_EINVAL', text, { shard, address: base });
    }
    if (base < end) {
      const other = `the one at ${hex(before.base)} for shard ${before.shard}`;
      const text = `the extent at ${hex(base)} for shard ${shard} overlaps ${other}`;
      throw new KhoError('KHO_EINVAL', text, { shard, address: base });
    }
    end = base + bytes;
    before = { base, shard };
  }
}
