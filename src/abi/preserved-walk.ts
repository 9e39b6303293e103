import {
  type FolioRunVisitor,
  type PhysicalAddress,
  type PhysicalMemory,
  type RadixWalkOptions,
  walkRadixRuns,
} from '../memblock/index.js';
import type { KhoRoot } from './kho-root.js';
import { walkKhoserMem } from './khoser-walk.js';

/**
 * Visits all that is preserved in the order in which the kernel of the profile reads it: a radix tree the highest order
 * first and neighbours together, a chunk list the lowest and one by one. Returns the pages of what lists it; none where the
 * root says that nothing is preserved. The errors of {@link walkRadixRuns} and {@link walkKhoserMem}.
 */
export function walkPreservedMemory(
  memory: PhysicalMemory,
  { profile, memoryMap }: Pick<KhoRoot, 'profile' | 'memoryMap'>,
  visit: FolioRunVisitor,
  options: RadixWalkOptions = {},
): PhysicalAddress[] {
  if (memoryMap === undefined) return [];
  const { bitmapBits } = profile;
  if (bitmapBits === undefined) return walkRadixRuns(memory, memoryMap, visit, options);
  return walkKhoserMem(memory, memoryMap, bitmapBits, (address, order) => visit(address, order, 1), options);
}
