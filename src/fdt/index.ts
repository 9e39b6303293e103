export * from './dts.js';
export {
  checkNodeName,
  checkPropertyName,
  FDT_MAX_NAME_PART,
  siblingsConflict,
} from './names.js';
export * from './partial.js';
export { FdtProperty } from './property.js';
export { FdtNode, FdtReader, type FdtReaderOptions, type FdtReservation } from './reader.js';
export * from './tree.js';
export * from './wire.js';
export { FdtWriter, type FdtWriterOptions } from './writer.js';
