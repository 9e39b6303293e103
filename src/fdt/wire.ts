/**
 * The flattened device tree as it lies in memory: format version 17, Devicetree Specification v0.4, chapter 5.
 * All framing words are big-endian and 4-aligned relative to the blob's start, which itself is 8-aligned.
 *
 * ```
 *  0 ┌─────────────────────────┐
 *    │ header, 10 words        │
 * 40 ├─────────────────────────┤ off_mem_rsvmap (8-aligned)
 *    │ {address, size} u64 × n │   ends with {0, 0}
 *    ├─────────────────────────┤ off_dt_struct (4-aligned)
 *    │ BEGIN_NODE name\0 pad   │
 *    │   PROP len nameoff      │   nameoff counts from off_dt_strings
 *    │     value pad           │
 *    │   BEGIN_NODE … END_NODE │   a node's properties precede its children
 *    │ END_NODE                │
 *    │ END                     │
 *    ├─────────────────────────┤ off_dt_strings (any alignment)
 *    │ name\0 name\0 …         │
 *    └─────────────────────────┘ totalsize
 * ```
 *
 * Other writers may order the blocks otherwise and leave gaps; a reader goes by the header.
 */

/** The first word of a blob. */
export const FDT_MAGIC = 0xd00dfeed;
/** The format version that is written, and the oldest version whose readers understand it. */
export const FDT_VERSION = 17;
export const FDT_LAST_COMPATIBLE_VERSION = 16;

/** Tokens of the structure block, as numbers. */
export const FDT_BEGIN_NODE = 1;
export const FDT_END_NODE = 2;
export const FDT_PROP = 3;
export const FDT_NOP = 4;
export const FDT_END = 9;

/** Bytes of one token. Every token and every record is a multiple of it. */
export const FDT_TOKEN_SIZE = 4;

/** Byte offsets of the header's words. */
export const FDT_HEADER_MAGIC = 0;
export const FDT_HEADER_TOTALSIZE = FDT_HEADER_MAGIC + FDT_TOKEN_SIZE;
export const FDT_HEADER_OFF_DT_STRUCT = FDT_HEADER_TOTALSIZE + FDT_TOKEN_SIZE;
export const FDT_HEADER_OFF_DT_STRINGS = FDT_HEADER_OFF_DT_STRUCT + FDT_TOKEN_SIZE;
export const FDT_HEADER_OFF_MEM_RSVMAP = FDT_HEADER_OFF_DT_STRINGS + FDT_TOKEN_SIZE;
export const FDT_HEADER_VERSION = FDT_HEADER_OFF_MEM_RSVMAP + FDT_TOKEN_SIZE;
export const FDT_HEADER_LAST_COMP_VERSION = FDT_HEADER_VERSION + FDT_TOKEN_SIZE;
export const FDT_HEADER_BOOT_CPUID_PHYS = FDT_HEADER_LAST_COMP_VERSION + FDT_TOKEN_SIZE;
export const FDT_HEADER_SIZE_DT_STRINGS = FDT_HEADER_BOOT_CPUID_PHYS + FDT_TOKEN_SIZE;
export const FDT_HEADER_SIZE_DT_STRUCT = FDT_HEADER_SIZE_DT_STRINGS + FDT_TOKEN_SIZE;
/** Bytes of a version 17 header. */
export const FDT_HEADER_SIZE = FDT_HEADER_SIZE_DT_STRUCT + FDT_TOKEN_SIZE;

/** A blob starts at a multiple of this, in memory and in files that are mapped. */
export const FDT_ALIGNMENT = 8;
/** Bytes of one memory reservation: address and size, both big-endian u64. An entry of size 0 ends the map. */
export const FDT_RESERVATION_SIZE = 16;
/** Bytes of a property before its value: the token, the length and the offset of the name. */
export const FDT_PROPERTY_HEADER_SIZE = 3 * FDT_TOKEN_SIZE;

/** Nodes above one another, the root included; the kernel's limit too (FDT_MAX_DEPTH in drivers/of/fdt.c). */
export const FDT_MAX_DEPTH = 64;
/** The largest blob: libfdt counts in signed 32-bit integers. */
export const FDT_MAX_SIZE = 2 ** 31 - 1;

/** The byte order of a property's payload; the framing is always big-endian. KHO payloads have the machine's own. */
export type ByteOrder = 'little' | 'big';

/** The byte order in which this machine stores the words of an Int32Array. */
export const HOST_BYTE_ORDER: ByteOrder = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1 ? 'little' : 'big';

/** A 32-bit word with its bytes reversed; signed, as an Int32Array holds it. */
export function swap32(word: number): number {
  return (word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24);
}

const SWAPS = HOST_BYTE_ORDER === 'little';

/** The word which, stored through an Int32Array, leaves the bytes of `value` in big-endian order in memory. */
export function wire32(value: number): number {
  return SWAPS ? swap32(value) : value | 0;
}

/** Tokens as {@link wire32} words, for code that writes a blob through an Int32Array. */
export const FDT_BEGIN_NODE_WIRE = wire32(FDT_BEGIN_NODE);
export const FDT_END_NODE_WIRE = wire32(FDT_END_NODE);
export const FDT_PROP_WIRE = wire32(FDT_PROP);
export const FDT_NOP_WIRE = wire32(FDT_NOP);
export const FDT_END_WIRE = wire32(FDT_END);

/** `bytes` rounded up to a whole number of tokens. Exact up to 2^53, hence no bit operations. */
export function align4(bytes: number): number {
  const end = bytes + FDT_TOKEN_SIZE - 1;
  return end - (end % FDT_TOKEN_SIZE);
}

/** Bytes that an empty node takes: BEGIN_NODE, the padded name with its NUL, END_NODE. `nameLength` is in bytes. */
export function nodeSize(nameLength: number): number {
  return FDT_TOKEN_SIZE + align4(nameLength + 1) + FDT_TOKEN_SIZE;
}

/** Bytes that a property takes in the structure block; its name lies in the strings block. */
export function propertySize(valueLength: number): number {
  return FDT_PROPERTY_HEADER_SIZE + align4(valueLength);
}
