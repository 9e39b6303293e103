import type { Subtree } from '../abi/index.js';
import type { RenderedBlob } from '../hashstage/index.js';
import type { Renderer } from './renderer.js';

/** What the next kernel finds in memory, and what it is made from depends on the profile. */
export interface HandoverOutput {
  /** Renders everything and links it to the root FDT, all of it preserved. Once, after the last driver has serialized. */
  finalize(renderer: Renderer): Promise<Finalized>;
}

/** The finished output. */
export interface Finalized {
  /** What the root FDT points to, in the order in which it was added. */
  readonly subtrees: readonly Subtree[];
  /** By driver's name. */
  readonly rendered: ReadonlyMap<string, RenderedBlob>;
  /** Bytes of the root FDT. */
  readonly rootSize: number;
}
