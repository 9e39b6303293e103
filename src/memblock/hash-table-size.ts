import { PAGE_SHIFT, PAGE_SIZE } from './address.js';

const MIB_SHIFT = 20;
/** Above 64 GiB, tables double only where memory quadruples. */
const ADAPT_SCALE_PAGES = 2 ** (36 - PAGE_SHIFT);
const ADAPT_SCALE_FACTOR = 4;
/** A table takes at most this part of memory. */
const LARGEST_SHARE = 1 / 16;
const MOST_BUCKETS = 2 ** 31;

/**
 * Bytes of a hash table that is scaled by memory: an exact rule, that of alloc_large_system_hash() without limits of its
 * own (mm/mm_init.c), as the dentry and inode caches call it.
 *
 * @param pages free pages in memblock once the struct pages are allocated
 * @param bucketSize bytes
 * @param scale one bucket for each 2^scale bytes of memory
 */
export function hashTableSize(pages: number, bucketSize: number, scale: number): number {
  const mebibytePages = 2 ** (MIB_SHIFT - PAGE_SHIFT);
  const rounded = Math.ceil(pages / mebibytePages) * mebibytePages;
  let shift = scale - PAGE_SHIFT;
  for (let adapt = ADAPT_SCALE_PAGES; adapt < rounded; adapt *= ADAPT_SCALE_FACTOR) shift++;
  const atLeastOnePage = Math.max(Math.floor(rounded / 2 ** shift), PAGE_SIZE / bucketSize);
  const buckets = 2 ** Math.ceil(Math.log2(atLeastOnePage));
  const most = Math.min(Math.floor((pages * PAGE_SIZE * LARGEST_SHARE) / bucketSize), MOST_BUCKETS);
  return 2 ** Math.floor(Math.log2(Math.max(1, Math.min(buckets, most)))) * bucketSize;
}
