import type { FdtFrame, Finalizer, RenderedFrame } from '../hashstage/index.js';
import { physicalAddress, type SharedPhysicalMemory } from '../memblock/index.js';

/** Room in physical memory. */
export interface RenderRoom {
  readonly memory: SharedPhysicalMemory;
  readonly address: number;
  /** Bytes. */
  readonly size: number;
}

/** Has a finalizer write an FDT into physical memory. Errors as {@link Finalizer.renderFrame}. */
export function renderStage(
  finalizer: Finalizer,
  frame: FdtFrame,
  { memory, address, size }: RenderRoom,
): RenderedFrame {
  const start = physicalAddress(address);
  if (memory.isContiguous(start, size)) return finalizer.renderFrame(frame, memory.view(start, size));
  // It lies across two segments of memory: then it is made elsewhere and copied.
  const target = new Uint8Array(size);
  const blob = finalizer.renderFrame(frame, target);
  memory.write(start, target.subarray(0, blob.size));
  return blob;
}
