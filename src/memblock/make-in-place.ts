import type { PhysicalAddress } from './address.js';
import type { SharedPhysicalMemory } from './physical-memory.js';

/**
 * Has a blob made where it is to lie, in `room` bytes at `address`. Room that lies across two segments of memory is no one
 * view: then the blob is made elsewhere and copied. `make` says how large it became.
 */
export function makeInPlace<Blob extends { readonly size: number }>(
  memory: SharedPhysicalMemory,
  address: PhysicalAddress,
  room: number,
  make: (target: Uint8Array) => Blob,
): Blob {
  if (memory.isContiguous(address, room)) return make(memory.view(address, room));
  const target = new Uint8Array(room);
  const blob = make(target);
  memory.write(address, target.subarray(0, blob.size));
  return blob;
}
