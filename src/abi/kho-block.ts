import { after, PAGE_SIZE, type PhysicalAddress } from '../memblock/index.js';
import { type ReadableMemory, type Structure, UntrustedMemory } from './structure.js';

/**
 * KHO blocks: entries of one size in a chain of pages (Linux 7.2, include/linux/kho/abi/block.h and kho_block.c).
 * Each block is one folio of order 0 (kho_alloc_preserve()), and restored as such.
 *
 * ```text
 *   block: a page
 *    0 u64 next ──▶ next block, 0 = last
 *    8 u64 count     entries in this block, never 0
 *   16 entry 0 | entry 1 | …
 * ```
 */
export const KHO_BLOCK_SIZE = PAGE_SIZE;
const NEXT_AT = 0;
const COUNT_AT = 8;
export const KHO_BLOCK_HEADER_SIZE = 16;
/** The longest chain that Linux follows. */
export const KHO_MAX_BLOCKS = 10_000;

/** Entries of `entrySize` bytes that fit into one block. */
export function khoBlockEntries(entrySize: number): number {
  return Math.floor((KHO_BLOCK_SIZE - KHO_BLOCK_HEADER_SIZE) / entrySize);
}

/** Blocks that `count` entries take: none for none. */
export function khoBlocks(entrySize: number, count: number): number {
  return Math.ceil(count / khoBlockEntries(entrySize));
}

/** The headers of the blocks that hold `count` entries: all but the last are full. As many as there are blocks. */
export function encodeKhoBlockHeaders(
  blocks: readonly PhysicalAddress[],
  entrySize: number,
  count: number,
): Uint8Array[] {
  const perBlock = khoBlockEntries(entrySize);
  return blocks.map((_, index) => {
    const bytes = new Uint8Array(KHO_BLOCK_HEADER_SIZE);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(NEXT_AT, BigInt(blocks[index + 1] ?? 0), true);
    view.setBigUint64(COUNT_AT, BigInt(Math.min(perBlock, count - index * perBlock)), true);
    return bytes;
  });
}

/** Where entry `index` of a chain of full blocks lies. */
export function khoBlockEntryAddress(
  blocks: readonly PhysicalAddress[],
  entrySize: number,
  index: number,
): PhysicalAddress {
  const perBlock = khoBlockEntries(entrySize);
  return after(blocks[Math.floor(index / perBlock)], KHO_BLOCK_HEADER_SIZE + (index % perBlock) * entrySize);
}

/** A chain of blocks, read. */
export interface KhoBlocks {
  readonly blocks: readonly PhysicalAddress[];
  readonly entries: readonly Structure[];
}

/** One block of a chain. */
export interface KhoBlock {
  readonly address: PhysicalAddress;
  readonly entries: readonly Structure[];
}

/**
 * Follows a chain as kho_block_set_restore() does, block by block; no head is no blocks. `what` names an entry: `session`.
 * KHO_EIMAGE for a cycle, more than {@link KHO_MAX_BLOCKS} blocks, a block outside of memory, and a count of 0 or above
 * what a block holds; the blocks before the damage have been yielded then.
 */
export function* khoBlockChain(
  memory: ReadableMemory,
  head: PhysicalAddress | undefined,
  entrySize: number,
  what: string,
): Generator<KhoBlock, void> {
  const perBlock = khoBlockEntries(entrySize);
  const untrusted = UntrustedMemory.of(memory);
  let blocks = 0;
  for (let at = head; at !== undefined; ) {
    const block = untrusted.structure(at, KHO_BLOCK_SIZE, `a block of ${what}s`);
    if (blocks++ === KHO_MAX_BLOCKS) throw block.bad(`the chain has more than ${KHO_MAX_BLOCKS} blocks`);
    const count = block.count(COUNT_AT, 'count', perBlock);
    if (count === 0) throw block.bad('count is 0: a block is never empty');
    const entries = Array.from({ length: count }, (_, index) =>
      block.part(`${what} ${index} of the block`, KHO_BLOCK_HEADER_SIZE + index * entrySize, entrySize),
    );
    yield { address: at, entries };
    at = block.pointer(NEXT_AT, 'next');
  }
}

/** A whole chain; errors as for {@link khoBlockChain}. */
export function readKhoBlocks(
  memory: ReadableMemory,
  head: PhysicalAddress | undefined,
  entrySize: number,
  what: string,
): KhoBlocks {
  const chain = [...khoBlockChain(memory, head, entrySize, what)];
  return { blocks: chain.map(({ address }) => address), entries: chain.flatMap(({ entries }) => entries) };
}
