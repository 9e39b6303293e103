import { swap32 } from '../fdt/index.js';

/**
 * The nodes of one shard in the form of an FDT's structure block, but that a property has the id of its name where the
 * FDT has the name's offset, and that END_NODE is missing of the nodes that are still open.
 */
export interface StructBlock {
  /** Words from the instance's BEGIN_NODE to the end. */
  readonly start: number;
  readonly end: number;
  /** Where the first child of the instance's node begins; {@link end} if there is none. */
  readonly childrenAt: number;
  /** How many nodes are open below the instance's. */
  readonly depth: number;
  /** Whether some node has children with and without unit addresses, which libfdt might take one for another. */
  readonly hasMixedKinds: boolean;
  /** The ids of the names in it, each once: a chain. */
  readonly names: number;
  /** Where the children of the instance's node begin, from {@link start}: a chain. */
  readonly children: number;
}

/** The words of a property behind its tag. */
export const PROPERTY_LENGTH = 1;
export const PROPERTY_NAME = 2;
export const PROPERTY_VALUE = 3;

/** The size in words of the property at `at`. */
export function propertyWords(words: Int32Array, at: number): number {
  return PROPERTY_VALUE + ((swap32(words[at + PROPERTY_LENGTH]) + 3) >>> 2);
}
