import type { Subtree } from '../abi/index.js';
import type { RenderedBlob } from '../hashstage/index.js';
import type { PhysicalAddress } from '../memblock/index.js';
import type { Host } from './host.js';
import type { Registry } from './registry.js';
import type { Renderer } from './renderer.js';
import type { Reservations } from './reservations.js';
import type { TimelineRecorder } from './timeline.js';

/** What the next kernel finds in memory, and what it is made from depends on the profile. */
export interface HandoverOutput {
  /**
   * Renders everything, so that all that is preserved is found from the FDT that the boot record leads to. Once, after the
   * last driver has serialized.
   */
  finalize(renderer: Renderer): Promise<Finalized>;
}

/** What every output is made from. */
export interface OutputParts {
  readonly host: Host;
  readonly registry: Registry;
  readonly reservations: Reservations;
  readonly recorder: TimelineRecorder;
}

/** The finished output. */
export interface Finalized {
  /** The root FDT, or the one FDT in which all is; bytes without the rest of its room. */
  readonly root: { readonly address: PhysicalAddress; readonly size: number };
  /** What the root FDT points to, in the order in which it was added; nothing where all is in one FDT. */
  readonly subtrees: readonly Subtree[];
  /** By driver's name: its blob, or its node of the one FDT. */
  readonly rendered: ReadonlyMap<string, RenderedBlob>;
  /** Bytes of FDT that hold the drivers' state, wherever they lie. */
  readonly stateBytes: number;
  /** The pages of what lists preserved memory: not preserved themselves, but the next kernel reads them. */
  readonly trackerPages: readonly PhysicalAddress[];
}
