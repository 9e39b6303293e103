import type { RenderedBlob } from '../hashstage/index.js';
import type { RegisteredDriver } from './registry.js';
import type { BlobRoom } from './reservations.js';

/** A mode's way from what the callbacks wrote to FDTs in physical memory. Main thread only, once all are serialized. */
export interface Renderer {
  /**
   * Writes the FDT of a driver into its room. KHO_EEXIST for a property that two shards gave one node, KHO_EINVAL for
   * siblings that libfdt could not tell apart, KHO_ENOSPC if it does not fit; each names the driver.
   */
  render(driver: RegisteredDriver, room: BlobRoom): RenderedBlob | Promise<RenderedBlob>;
}
