/**
 * The layout of ExtentTable in shared memory, in 32-bit words.
 *
 * ```text
 *   word 0     SHARD_COUNT
 *        1     offset of record 0, 1, 2, ...
 *   -- 64-byte line ------------------------------------------------------------
 *   record 0   UNIT_ORDER | DECLARED | FREE | SEARCH_EXTENT | EXTENT_COUNT | CACHED | CACHE: (extent, unit) x 16
 *              extent 0: FIRST low, high | EXTENT_UNITS | SEARCH_FROM | USED | HEADS
 *              extent 1: ...                                             |       |
 *              used bits of extent 0  <----------------------------------'       |
 *              head bits of extent 0  <------------------------------------------'
 *              used bits of extent 1  ...
 *   -- 64-byte line ------------------------------------------------------------
 *   record 1   ...
 * ```
 *
 * A record counts in units of 2^UNIT_ORDER pages, aligned to their size: pages, or for guest memory its folios, so that
 * a terabyte of them needs no larger bitmaps than a gigabyte of pages.
 *
 * The head bits record where each allocation starts; it ends before the next head or the next unit that is not used.
 * A unit in the cache is free, and has both its bits set: so it is no part of a neighbour, nor found by a search.
 */

/** Fields of the table's header. After them follow the word offsets of the shards' records. */
export const SHARD_COUNT = 0;
export const RECORD_OFFSETS = 1;

/** Fields of a shard's record. After them follow its extents, then their bitmaps. */
export const UNIT_ORDER = 0;
export const DECLARED = 1; // in units, as all numbers below
export const FREE = 2;
export const SEARCH_EXTENT = 3; // no extent below this one has a free unit
export const EXTENT_COUNT = 4;
export const CACHED = 5; // units in the cache
export const CACHE = 6; // the cache, the unit freed last at its end: index of the extent, unit in it
/** Free units that a shard has at hand at most. */
export const CACHE_UNITS = 16;
export const CACHE_FIELDS = 2;
export const EXTENTS = CACHE + CACHE_UNITS * CACHE_FIELDS;

/** Fields of one extent. */
export const FIRST = 0; // number of the first unit: its address by the size of a unit; below 2^40: low word, then high word
export const EXTENT_UNITS = FIRST + 2;
export const SEARCH_FROM = EXTENT_UNITS + 1; // no unit below this one is free
export const USED = SEARCH_FROM + 1; // word offset of the bitmap: bit i = unit i is allocated
export const HEADS = USED + 1; // word offset of the bitmap: bit i = an allocation starts at unit i
export const EXTENT_FIELDS = HEADS + 1;

/** Records start at cache lines: shards that run at the same time write to lines of their own. */
export const LINE_WORDS = 64 / 4;

/** Words up to the next cache line. */
export function alignToLine(words: number): number {
  return Math.ceil(words / LINE_WORDS) * LINE_WORDS;
}
