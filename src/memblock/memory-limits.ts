import { PHYS_ADDR_MAX, type PhysicalAddress, physicalAddress } from './address.js';
import { NoRoomToGrow } from './double-array.js';
import type { MemblockType } from './memblock-type.js';
import { capSize, MemblockFlags } from './region.js';

/** Where the first `limit` bytes of memory end; undefined for 0, for more than there is, and for all of the address space. */
export function endOfFirst(memory: MemblockType, limit: number): PhysicalAddress | undefined {
  let left = capSize(physicalAddress(0), limit);
  if (left === 0) return undefined;
  for (const { base, size } of memory.regions) {
    if (left <= size) return base + left === PHYS_ADDR_MAX ? undefined : physicalAddress(base + left);
    left -= size;
  }
  return undefined;
}

/** Takes what is above the first `limit` bytes of memory out of both. */
export function enforceMemoryLimit(memory: MemblockType, reserved: MemblockType, limit: number): void {
  const end = endOfFirst(memory, limit);
  if (end === undefined) return;
  doBoth(
    () => memory.removeRange(end, PHYS_ADDR_MAX),
    () => reserved.removeRange(end, PHYS_ADDR_MAX),
  );
}

/** Takes what is outside a range out of both, but no memory that is NOMAP. What the range cuts stays cut. */
export function capMemoryRange(
  memory: MemblockType,
  reserved: MemblockType,
  base: PhysicalAddress,
  size: number,
): void {
  const [first, last] = memory.isolateRange(base, size);
  memory.keepOnly(({ flags }, index) => (index >= first && index < last) || (flags & MemblockFlags.NOMAP) !== 0);
  doBoth(
    () => reserved.removeRange(physicalAddress(0), base),
    () => reserved.removeRange(physicalAddress(Math.min(base + size, PHYS_ADDR_MAX)), PHYS_ADDR_MAX),
  );
}

/** Does the second also if the first found no room: the kernel does not look at what its functions return there. */
function doBoth(first: () => void, second: () => void): void {
  try {
    first();
  } catch (error) {
    if (error instanceof NoRoomToGrow) second();
    throw error;
  }
  second();
}
