import { KhoError } from '../errors.js';
import { physicalAddress } from './address.js';
import type { PhysicalMemory } from './physical-memory.js';

/** How much memory is looked at in one step. */
const CHUNK_SIZE = 2 ** 20;

/** A piece of memory, valid until the next is asked for. */
export interface MemoryChunk {
  /** Its first address: a multiple of 1 MiB, or where memory begins. */
  readonly start: number;
  readonly bytes: Buffer;
}

/**
 * All backed memory in [low, high) in pieces of at most 1 MiB, from the top down, for searches. What a memory map
 * promises and an image does not hold is left out.
 */
export function* memoryChunksDown(memory: PhysicalMemory, low: number, high: number): Generator<MemoryChunk, void> {
  const room = Buffer.alloc(CHUNK_SIZE);
  for (const range of [...memory.ranges].reverse()) {
    if (!range.backed) continue;
    const bottom = Math.max(range.base, low);
    for (let top = Math.min(range.base + range.size, high); top > bottom; ) {
      const start = Math.max(bottom, top - 1 - ((top - 1) % CHUNK_SIZE));
      const bytes = room.subarray(0, top - start);
      if (readIfThere(memory, start, bytes)) yield { start, bytes };
      top = start;
    }
  }
}

function readIfThere(memory: PhysicalMemory, address: number, into: Uint8Array): boolean {
  try {
    memory.readInto(physicalAddress(address), into);
    return true;
  } catch (error) {
    if (error instanceof KhoError && error.code === 'KHO_EFAULT') return false;
    throw error;
  }
}
