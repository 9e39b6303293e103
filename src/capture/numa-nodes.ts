import { MAX_NUMNODES } from '../memblock/index.js';
import type { FoundRange } from './address-ranges.js';
import type { CapturedFiles } from './captured-files.js';

export const NODES = 'sys/devices/system/node';
export const MEMORY_BLOCK_SIZE = 'sys/devices/system/memory/block_size_bytes';

/** A section of x86-64, 128 MiB (include/linux/memory.h). */
const MIN_MEMORY_BLOCK_SIZE = 2 ** 27;

/** A block of memory, the unit of memory hot-plug. It may have holes. */
export interface MemoryBlock extends FoundRange {
  readonly nid: number;
}

export interface NumaNodes {
  /** Ids of the nodes, ascending; with no memory there may be nodes of CPUs alone. */
  readonly nids: readonly number[];
  /** Those with blocks, ascending, be they other nodes' too. */
  readonly populated: readonly number[];
  /** In order of address, none twice: one that lies on several nodes is the lowest's. */
  readonly blocks: readonly MemoryBlock[];
  readonly notices: readonly string[];
}

/**
 * Reads which node has which block of memory. No nodes on a kernel without NUMA; nodes without blocks on one without memory
 * hot-plug. KHO_EINVAL where there are blocks but their size is missing or makes no sense, and for nodes that share more than the
 * blocks at their borders.
 */
export function readNumaNodes(files: CapturedFiles): NumaNodes {
  const nids = numbered(files.list(NODES), 'node');
  const owners = new Map<number, number[]>();
  const populated: number[] = [];
  for (const nid of nids) {
    if (nid >= MAX_NUMNODES) throw files.invalid(`${NODES}/node${nid}`, `is beyond the last node, ${MAX_NUMNODES - 1}`);
    const own = numbered(files.list(`${NODES}/node${nid}`), 'memory');
    if (own.length > 0) populated.push(nid);
    for (const block of own) owners.set(block, [...(owners.get(block) ?? []), nid]);
  }
  checkBorders(files, owners);
  const size = owners.size === 0 ? 0 : blockSize(files);
  const blocks = Array.from(owners, ([block, [nid]]): MemoryBlock => {
    const path = `${NODES}/node${nid}/memory${block}`;
    const range = { base: block * size, end: (block + 1) * size };
    if (!Number.isSafeInteger(range.end))
      throw files.invalid(path, `lies above every address (blocks of ${size} bytes)`);
    return { ...range, nid, where: files.name(path) };
  }).sort((a, b) => a.base - b.base);
  const shared = [...owners].filter(([, { length }]) => length > 1);
  const [first] = shared;
  if (first === undefined) return { nids, populated, blocks, notices: [] };
  const more = shared.length > 1 ? `, and ${shared.length - 1} more` : '';
  const text = `memory blocks on several nodes are taken to be the lowest one's: ${first[0]} (nodes ${first[1].join(', ')})${more}`;
  return { nids, populated, blocks, notices: [text] };
}

/**
 * A block that holds a border of nodes is on all that meet there, be they the many small ones of `numa=fake=`. As a node's
 * memory is in one piece between two borders, no block is in the midst of two.
 */
function checkBorders(files: CapturedFiles, owners: ReadonlyMap<number, readonly number[]>): void {
  for (const [block, nids] of owners) {
    const neighbours = [block - 1, block + 1].map((other) => owners.get(other) ?? []);
    const [nid, other] = nids.filter((nid) => neighbours.every((nodes) => nodes.includes(nid)));
    if (other === undefined) continue;
    const what = `is on node ${nid} too, as are the blocks on both sides of it; nodes share only blocks at their borders`;
    throw files.invalid(`${NODES}/node${other}/memory${block}`, what);
  }
}

/** Names of a prefix and a number, as numbers in order. */
function numbered(names: readonly string[], prefix: string): number[] {
  return names
    .flatMap((name) => {
      const digits = name.startsWith(prefix) ? name.slice(prefix.length) : '';
      return /^(0|[1-9]\d{0,14})$/.test(digits) ? [Number(digits)] : [];
    })
    .sort((a, b) => a - b);
}

/** In hexadecimal without 0x; a power of two. */
function blockSize(files: CapturedFiles): number {
  const line = files.requiredLine(MEMORY_BLOCK_SIZE);
  const size = /^[0-9a-f]{1,12}$/.test(line) ? Number.parseInt(line, 16) : 0;
  if (size >= MIN_MEMORY_BLOCK_SIZE && Number.isInteger(Math.log2(size))) return size;
  const expected = 'expected a power of two in hexadecimal, at least 8000000 (128 MiB)';
  throw files.invalid(MEMORY_BLOCK_SIZE, `is '${line.slice(0, 60)}'; ${expected}`);
}
