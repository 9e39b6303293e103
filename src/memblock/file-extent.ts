import type { PhysicalAddress } from './address.js';

/** A stretch of memory that lies in a file as it is. */
export interface FileExtent {
  /** First physical address. */
  readonly address: PhysicalAddress;
  /** Where it begins in the file. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
}
