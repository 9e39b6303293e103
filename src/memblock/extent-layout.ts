/**
 * The layout of ExtentTable in shared memory, in 32-bit words.
 *
 * ```text
 *   word 0     SHARD_COUNT
 *        1     offset of record 0, 1, 2, ...
 *   -- 64-byte line ------------------------------------------------------------
 *   record 0   DECLARED_PAGES | FREE_PAGES | EXTENT_COUNT
 *              extent 0: FRAME low, high | EXTENT_PAGES | SEARCH_FROM | USED | HEADS
 *              extent 1: ...                                             |       |
 *              used bits of extent 0  <----------------------------------'       |
 *              head bits of extent 0  <------------------------------------------'
 *              used bits of extent 1  ...
 *   -- 64-byte line ------------------------------------------------------------
 *   record 1   ...
 * ```
 *
 * The head bits record where each allocation starts; it ends before the next head or the next page that is not used.
 */

/** Fields of the table's header. After them follow the word offsets of the shards' records. */
export const SHARD_COUNT = 0;
export const RECORD_OFFSETS = 1;

/** Fields of a shard's record. After them follow its extents, then their bitmaps. */
export const DECLARED_PAGES = 0;
export const FREE_PAGES = 1;
export const EXTENT_COUNT = 2;
export const EXTENTS = 3;

/** Fields of one extent. */
export const FRAME = 0; // page frame number, below 2^40: low word, then high word
export const EXTENT_PAGES = FRAME + 2;
export const SEARCH_FROM = EXTENT_PAGES + 1; // no page below this one is free
export const USED = SEARCH_FROM + 1; // word offset of the bitmap: bit i = page i is allocated
export const HEADS = USED + 1; // word offset of the bitmap: bit i = an allocation starts at page i
export const EXTENT_FIELDS = HEADS + 1;

/** Records start at cache lines: shards that run at the same time write to lines of their own. */
export const LINE_WORDS = 64 / 4;

/** Words up to the next cache line. */
export function alignToLine(words: number): number {
  return Math.ceil(words / LINE_WORDS) * LINE_WORDS;
}
