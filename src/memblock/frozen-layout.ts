/**
 * The layout of FrozenTable in shared memory, in 32-bit words. A page's number counts the pages of all extents: shard by
 * shard, within a shard by ascending address.
 *
 * ```text
 *   word 0     SHARDS | PAGES | STATES | DIGESTS
 *        4     number of the first page of shard 0, 1, 2, ...      |        |
 *   -- 64-byte line ---------------------------------------------  |        |
 *   states     page 0 | page 1 | page 2 | ...   <------------------'        |
 *              each OPEN, FROZEN or BUSY                                    |
 *   -- 64-byte line ---------------------------------------------           |
 *   digests    page 0: line 0 | line 1 | ... | line 63   <------------------'
 *              page 1: ...
 * ```
 *
 * Protocol. A page is OPEN until its driver is frozen; then it is FROZEN, and its digests are those of its lines. Whoever
 * writes to a FROZEN page by right compares the lines first and digests them anew afterwards; a line that was not as it
 * should be gets the complement of its digest, so that it is found at the jump and not covered up by the write.
 *
 * Threads. Pages of an instance with one shard are touched by one thread at a time, ordered by the messages that start
 * and end phases: nothing is atomic. The shards of other instances may run at the same time, and each may write to pages
 * of all of them: there a page is taken by a compare-and-swap of its state to BUSY, and given back with the state that
 * it is to have. BUSY lasts for one write or one digest of a page.
 */

/** Fields of the header. After them follow the numbers of the shards' first pages. */
export const FROZEN_SHARDS = 0;
export const FROZEN_PAGES = 1;
export const FROZEN_STATES = 2; // word offset of the states
export const FROZEN_DIGESTS = 3; // word offset of the digests
export const FROZEN_FIRST_PAGES = 4;

/** The states of a page. */
export const OPEN = 0;
export const FROZEN = 1;
export const BUSY = 2;
