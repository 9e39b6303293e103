import { KhoError } from '../errors.js';
import { alignUp, PAGE_SIZE, type PhysicalAddress, physicalAddress } from './address.js';
import { type MemblockLog, pa } from './memblock-log.js';
import type { MemblockType } from './memblock-type.js';

/** sizeof(struct memblock_region) with NUMA: base, size, flags and nid. */
export const MEMBLOCK_REGION_SIZE = 24;

/** -ENOMEM of memblock_double_array(): there is no room for a larger array. An allocation tries on where it meets this. */
export class NoRoomToGrow extends KhoError {}

/** What an array needs to grow: what is free, and a way to reserve it. */
interface GrowingMemblock {
  readonly memory: MemblockType;
  readonly reserved: MemblockType;
  readonly canResize: boolean;
  readonly currentLimit: PhysicalAddress;
  readonly log: MemblockLog | undefined;
  findForArray(start: PhysicalAddress, end: PhysicalAddress, size: number): PhysicalAddress | undefined;
  reserveKern(base: PhysicalAddress, size: number): void;
  free(base: PhysicalAddress, size: number): void;
}

/**
 * Moves the array of `type` to a place twice as large (memblock_double_array): not into the range that is waiting to be
 * reserved, above it if there is room, else below it. The place is reserved as the kernel's own, and the old one is free
 * again unless it was the one in the image.
 */
export function doubleArray(
  memblock: GrowingMemblock,
  type: MemblockType,
  newStart: PhysicalAddress,
  newSize: number,
): void {
  if (!memblock.canResize) {
    throw new KhoError('KHO_ENOMEM', `memblock: cannot resize ${type.name} array (its ${type.max} regions are taken)`);
  }
  const [oldBytes, bytes] = [type.max, type.max * 2].map((max) => alignUp(max * MEMBLOCK_REGION_SIZE, PAGE_SIZE));
  const [start, size] = type === memblock.reserved ? [newStart, newSize] : [physicalAddress(0), 0];
  let place = memblock.findForArray(physicalAddress(start + size), memblock.currentLimit, bytes);
  if (place === undefined && size > 0) {
    // The kernel's catch: with a range at 0 the end of this search is 0, which means the limit, range and all.
    place = memblock.findForArray(physicalAddress(0), physicalAddress(Math.min(start, memblock.currentLimit)), bytes);
  }
  if (place === undefined) {
    const text = `Failed to double ${type.name} array from ${type.max} to ${type.max * 2} entries !`;
    memblock.log?.(`memblock: ${text}`);
    throw new NoRoomToGrow('KHO_ENOMEM', `memblock: ${text}`, { size: bytes });
  }
  const last = place + type.max * 2 * MEMBLOCK_REGION_SIZE - 1;
  memblock.log?.(`memblock: ${type.name} is doubled to ${type.max * 2} at [${pa(place)}-${pa(last)}]`);
  const old = type.arrayAddress;
  const move = (): void => {
    type.moveArray(place, type.max * 2);
    if (old !== undefined) freeOldArray(memblock, old, oldBytes);
    memblock.reserveKern(place, bytes);
  };
  if (type === memblock.reserved && type.regions.length + REGIONS_MOVED <= type.max * 2) move();
  else moveOrUndo(memblock, type, move);
}

/** Regions that freeing one place and reserving another add at most: with room for these, the reserved array does not grow. */
const REGIONS_MOVED = 4;

/** Where the reserved array may have to grow for the move, and fail, while the kernel would BUG: its array lies in memory that is not reserved. */
function moveOrUndo({ memory, reserved }: GrowingMemblock, { name }: MemblockType, move: () => void): void {
  const before = [memory.save(), reserved.save()];
  try {
    move();
  } catch (cause) {
    memory.restore(before[0]);
    reserved.restore(before[1]);
    throw new KhoError('KHO_ENOMEM', `memblock: the new ${name} array cannot be reserved`, {}, { cause });
  }
}

/** Where the reserved array is full as well and finds no room, the old place stays reserved: nobody asks. */
function freeOldArray(memblock: GrowingMemblock, base: PhysicalAddress, size: number): void {
  try {
    memblock.free(base, size);
  } catch (error) {
    if (!(error instanceof NoRoomToGrow)) throw error;
  }
}
