import type { RenderedFrame } from '../hashstage/index.js';
import { physicalAddress, type SharedPhysicalMemory } from '../memblock/index.js';

/** Room in physical memory. */
export interface RenderRoom {
  readonly memory: SharedPhysicalMemory;
  readonly address: number;
  /** Bytes. */
  readonly size: number;
}

/** Has an FDT written into physical memory; errors are those of `render`. */
export function renderInto(
  { memory, address, size }: RenderRoom,
  render: (target: Uint8Array) => RenderedFrame,
): RenderedFrame {
  const start = physicalAddress(address);
  if (memory.isContiguous(start, size)) return render(memory.view(start, size));
  // It lies across two segments of memory: then it is made elsewhere and copied.
  const target = new Uint8Array(size);
  const blob = render(target);
  memory.write(start, target.subarray(0, blob.size));
  return blob;
}
