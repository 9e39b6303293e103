import { MAX_NUMNODES } from '../memblock/index.js';
import type { FoundRange } from './address-ranges.js';
import type { CapturedFiles } from './captured-files.js';

export const NODES = 'sys/devices/system/node';
export const MEMORY_BLOCK_SIZE = 'sys/devices/system/memory/block_size_bytes';

/** A block of memory, the unit of memory hot-plug. It may have holes. */
export interface MemoryBlock extends FoundRange {
  readonly nid: number;
}

export interface NumaNodes {
  /** Ids of the nodes, ascending; with no memory there may be nodes of CPUs alone. */
  readonly nids: readonly number[];
  /** In order of address, none twice: one that lies on two nodes is the lower's. */
  readonly blocks: readonly MemoryBlock[];
  readonly notices: readonly string[];
}

/**
 * Reads which node has which block of memory. No nodes on a kernel without NUMA; nodes without blocks on one without memory
 * hot-plug. KHO_EINVAL where there are blocks but their size is missing or makes no sense.
 */
export function readNumaNodes(files: CapturedFiles): NumaNodes {
  const shared: string[] = [];
  const nids = numbered(files.list(NODES), 'node');
  const owners = new Map<number, number>();
  for (const nid of nids) {
    if (nid >= MAX_NUMNODES) throw files.invalid(`${NODES}/node${nid}`, `is beyond the last node, ${MAX_NUMNODES - 1}`);
    for (const block of numbered(files.list(`${NODES}/node${nid}`), 'memory')) {
      const other = owners.get(block);
      if (other === undefined) owners.set(block, nid);
      else shared.push(`${block} on nodes ${other} and ${nid}`);
    }
  }
  const size = owners.size === 0 ? 0 : blockSize(files);
  const blocks = Array.from(owners, ([block, nid]): MemoryBlock => {
    const path = `${NODES}/node${nid}/memory${block}`;
    const range = { base: block * size, end: (block + 1) * size };
    if (!Number.isSafeInteger(range.end))
      throw files.invalid(path, `lies above every address (blocks of ${size} bytes)`);
    return { ...range, nid, where: files.name(path) };
  }).sort((a, b) => a.base - b.base);
  const [first] = shared;
  const text = `${shared.length} memory blocks lie on two nodes (${first} …); each is taken to be the lower node's`;
  return { nids, blocks, notices: first === undefined ? [] : [text] };
}

/** Names of a prefix and a number, as numbers in order. */
function numbered(names: readonly string[], prefix: string): number[] {
  return names
    .flatMap((name) => {
      const digits = name.startsWith(prefix) ? name.slice(prefix.length) : '';
      return /^\d{1,15}$/.test(digits) ? [Number(digits)] : [];
    })
    .sort((a, b) => a - b);
}

/** In hexadecimal without 0x; at least a section of 128 MiB on x86-64, a power of two. */
function blockSize(files: CapturedFiles): number {
  const line = files.requiredLine(MEMORY_BLOCK_SIZE);
  const size = /^[0-9a-f]{1,12}$/.test(line) ? Number.parseInt(line, 16) : 0;
  if (size >= 2 ** 20 && Number.isInteger(Math.log2(size))) return size;
  throw files.invalid(MEMORY_BLOCK_SIZE, `is '${line.slice(0, 60)}'; expected a size in hexadecimal such as 8000000`);
}
