/** khorus/driver: what a driver's module needs. This file only exports. */
export { KhoError, type KhoErrorCode, type KhoErrorDetails } from './errors.js';
export type { FdtNode, FdtProperty } from './fdt/index.js';
export {
  after,
  type Folio,
  hex,
  PAGE_SIZE,
  type PageRange,
  type PhysicalAddress,
  physicalAddress,
} from './memblock/index.js';
export {
  type CancelContext,
  DEFAULT_MAX_BYTES,
  type DmaWindow,
  type Driver,
  defineDriver,
  type FinishContext,
  type FreezeContext,
  type GuestSpec,
  type InstanceContext,
  type MemoryReader,
  type MemoryWriter,
  type NodeWriter,
  type OptionsParser,
  type PrepareContext,
  type PropertyName,
  type RawPrepared,
  type RestoreContext,
  type SerializeContext,
  type ShardAccess,
  type ShardSpec,
  type SubBlob,
} from './workers/driver.js';
export { Random } from './workers/random.js';
