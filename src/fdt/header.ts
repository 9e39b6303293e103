import {
  FDT_HEADER_BOOT_CPUID_PHYS,
  FDT_HEADER_LAST_COMP_VERSION,
  FDT_HEADER_MAGIC,
  FDT_HEADER_OFF_DT_STRINGS,
  FDT_HEADER_OFF_DT_STRUCT,
  FDT_HEADER_OFF_MEM_RSVMAP,
  FDT_HEADER_SIZE_DT_STRINGS,
  FDT_HEADER_SIZE_DT_STRUCT,
  FDT_HEADER_TOTALSIZE,
  FDT_HEADER_VERSION,
  FDT_LAST_COMPATIBLE_VERSION,
  FDT_MAGIC,
  FDT_TOKEN_SIZE,
  FDT_VERSION,
  wire32,
} from './wire.js';

/** Where the blocks of a blob lie, in bytes from its start. */
export interface FdtBlocks {
  totalSize: number;
  reservationsAt: number;
  structureAt: number;
  structureSize: number;
  stringsAt: number;
  stringsSize: number;
}

/** Writes a version 17 header into the first words of a blob; boot_cpuid_phys is 0, as no CPU boots from our blobs. */
export function writeHeader(words: Int32Array<ArrayBufferLike>, blocks: FdtBlocks): void {
  const put = (at: number, value: number) => {
    words[at / FDT_TOKEN_SIZE] = wire32(value);
  };
  put(FDT_HEADER_MAGIC, FDT_MAGIC);
  put(FDT_HEADER_TOTALSIZE, blocks.totalSize);
  put(FDT_HEADER_OFF_DT_STRUCT, blocks.structureAt);
  put(FDT_HEADER_OFF_DT_STRINGS, blocks.stringsAt);
  put(FDT_HEADER_OFF_MEM_RSVMAP, blocks.reservationsAt);
  put(FDT_HEADER_VERSION, FDT_VERSION);
  put(FDT_HEADER_LAST_COMP_VERSION, FDT_LAST_COMPATIBLE_VERSION);
  put(FDT_HEADER_BOOT_CPUID_PHYS, 0);
  put(FDT_HEADER_SIZE_DT_STRINGS, blocks.stringsSize);
  put(FDT_HEADER_SIZE_DT_STRUCT, blocks.structureSize);
}
