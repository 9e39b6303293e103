import { KhoError, type KhoErrorCode } from '../errors.js';
import { readU32 } from './integers.js';
import {
  align4,
  FDT_BEGIN_NODE,
  FDT_END,
  FDT_END_NODE,
  FDT_HEADER_BOOT_CPUID_PHYS,
  FDT_HEADER_LAST_COMP_VERSION,
  FDT_HEADER_MAGIC,
  FDT_HEADER_OFF_DT_STRINGS,
  FDT_HEADER_OFF_DT_STRUCT,
  FDT_HEADER_OFF_MEM_RSVMAP,
  FDT_HEADER_SIZE,
  FDT_HEADER_SIZE_DT_STRINGS,
  FDT_HEADER_SIZE_DT_STRUCT,
  FDT_HEADER_TOTALSIZE,
  FDT_HEADER_VERSION,
  FDT_MAGIC,
  FDT_MAX_DEPTH,
  FDT_MAX_SIZE,
  FDT_NOP,
  FDT_PROP,
  FDT_PROPERTY_HEADER_SIZE,
  FDT_RESERVATION_SIZE,
  FDT_TOKEN_SIZE,
  FDT_VERSION,
} from './wire.js';

/**
 * The longest name that is read, in bytes. Without a bound, a hostile blob could point every property into one name of
 * many megabytes, and reading the names would take forever.
 */
export const MAX_NAME_LENGTH = 255;

/** Where a blob's blocks lie, in bytes from its start. */
export interface Layout {
  /** Exactly totalsize bytes; a plain Uint8Array, since a Buffer's slice() does not copy. */
  bytes: Uint8Array;
  version: number;
  bootCpuid: number;
  reservationsAt: number;
  reservationCount: number;
  structureAt: number;
  structureEnd: number;
  stringsAt: number;
  stringsEnd: number;
}

/**
 * All nodes in preorder, {@link NODE_FIELDS} numbers each. A node's first child is the next node, if `end` is beyond it;
 * the next sibling is the node at `end`.
 */
export type Structure = readonly number[];

const NODE_OFFSET = 0;
const NODE_PROPERTIES = 1;
const NODE_END = 2;
const NODE_FIELDS = 3;

/** Byte offsets of a node's BEGIN_NODE token and of what follows its name; the index of the node after its subtree. */
export function structureNode(
  structure: Structure,
  index: number,
): { offset: number; propertiesAt: number; end: number } {
  const at = index * NODE_FIELDS;
  return {
    offset: structure[at + NODE_OFFSET],
    propertiesAt: structure[at + NODE_PROPERTIES],
    end: structure[at + NODE_END],
  };
}

/** The framing word at a byte offset, unsigned. */
export function readWord(bytes: Uint8Array, at: number): number {
  return readU32(bytes, at, 'big');
}

/** Judges a whole blob in one pass; errors as FdtReader.open() documents them. */
export function walkBlob(bytes: Uint8Array): { layout: Layout; structure: Structure } {
  const layout = readHeader(bytes);
  return { layout, structure: walkStructure(layout) };
}

function readHeader(given: Uint8Array): Layout {
  const there = given.length;
  if (there >= FDT_TOKEN_SIZE && readWord(given, FDT_HEADER_MAGIC) !== FDT_MAGIC) {
    const magic = readWord(given, FDT_HEADER_MAGIC).toString(16).padStart(8, '0');
    throw bad(
      'KHO_FDT_BADMAGIC',
      `bad magic, not a flattened device tree: 0x${magic} instead of 0xd00dfeed`,
      FDT_HEADER_MAGIC,
    );
  }
  if (there < FDT_HEADER_SIZE) {
    throw bad('KHO_FDT_TRUNCATED', `${there} bytes are too few for the header of ${FDT_HEADER_SIZE}: cut short`, there);
  }
  const field = (at: number) => readWord(given, at);
  const version = field(FDT_HEADER_VERSION);
  const lastCompatible = field(FDT_HEADER_LAST_COMP_VERSION);
  if (version < FDT_VERSION || lastCompatible > FDT_VERSION || lastCompatible > version) {
    const message = `version ${version}, readable for readers of ${lastCompatible}; this reader knows ${FDT_VERSION}`;
    throw bad('KHO_FDT_BADVERSION', message, FDT_HEADER_VERSION);
  }
  const totalSize = field(FDT_HEADER_TOTALSIZE);
  if (totalSize < FDT_HEADER_SIZE || totalSize > FDT_MAX_SIZE) {
    const message = `a totalsize of ${totalSize} bytes (must be ${FDT_HEADER_SIZE} to ${FDT_MAX_SIZE})`;
    throw bad('KHO_FDT_BADLAYOUT', message, FDT_HEADER_TOTALSIZE);
  }
  if (totalSize > there) {
    // debugfs of Linux 7.2 does this: kho/out/fdt keeps the length that the blob had when the file was made.
    throw bad('KHO_FDT_TRUNCATED', `cut short: ${there} bytes are there of a totalsize of ${totalSize}`, there);
  }

  const block = (name: string, atField: number, alignment: number, size: number, sizeField: number): number => {
    const at = field(atField);
    if (at % alignment !== 0)
      throw bad('KHO_FDT_BADLAYOUT', `the ${name} at ${at}, not a multiple of ${alignment}`, atField);
    if (at < FDT_HEADER_SIZE || at > totalSize) {
      throw bad('KHO_FDT_BADLAYOUT', `the ${name} at ${at}, outside of ${FDT_HEADER_SIZE} to ${totalSize}`, atField);
    }
    if (size > totalSize - at) {
      throw bad('KHO_FDT_BADLAYOUT', `the ${name} at ${at} with ${size} bytes ends after ${totalSize}`, sizeField);
    }
    return at;
  };
  const structureSize = field(FDT_HEADER_SIZE_DT_STRUCT);
  const stringsSize = field(FDT_HEADER_SIZE_DT_STRINGS);
  const reservationsAt = block('reservation map', FDT_HEADER_OFF_MEM_RSVMAP, 8, 0, FDT_HEADER_OFF_MEM_RSVMAP);
  const structureAt = block(
    'structure block',
    FDT_HEADER_OFF_DT_STRUCT,
    FDT_TOKEN_SIZE,
    structureSize,
    FDT_HEADER_SIZE_DT_STRUCT,
  );
  const stringsAt = block('strings block', FDT_HEADER_OFF_DT_STRINGS, 1, stringsSize, FDT_HEADER_SIZE_DT_STRINGS);
  const bytes = new Uint8Array(given.buffer, given.byteOffset, totalSize);
  return {
    bytes,
    version,
    bootCpuid: field(FDT_HEADER_BOOT_CPUID_PHYS),
    reservationsAt,
    reservationCount: countReservations(bytes, reservationsAt),
    structureAt,
    structureEnd: structureAt + structureSize,
    stringsAt,
    stringsEnd: stringsAt + stringsSize,
  };
}

/** The map ends, for libfdt, Linux and dtc, at the first entry of size 0; the specification has its address 0 as well. */
function countReservations(bytes: Uint8Array, reservationsAt: number): number {
  for (let at = reservationsAt; at + FDT_RESERVATION_SIZE <= bytes.length; at += FDT_RESERVATION_SIZE) {
    const size = at + FDT_RESERVATION_SIZE / 2;
    if (readWord(bytes, size) === 0 && readWord(bytes, size + FDT_TOKEN_SIZE) === 0) {
      return (at - reservationsAt) / FDT_RESERVATION_SIZE;
    }
  }
  throw bad('KHO_FDT_BADLAYOUT', 'the reservation map lacks the entry of size 0 that ends it', reservationsAt);
}

/** One pass over the tokens, without recursion: a stack of at most FDT_MAX_DEPTH open nodes. */
function walkStructure(layout: Layout): Structure {
  const { bytes, structureAt, structureEnd } = layout;
  const names = new PropertyNames(layout);
  const nodes: number[] = [];
  const open: number[] = [];
  let count = 0;
  let afterChild = false; // the open node has a child already, so that no property may follow
  let at = structureAt;
  // Each turn moves on by a token at least.
  while (at + FDT_TOKEN_SIZE <= structureEnd) {
    const token = readWord(bytes, at);
    switch (token) {
      case FDT_BEGIN_NODE: {
        if (open.length === 0 && count > 0) throw bad('KHO_FDT_BADSTRUCTURE', 'a second root node', at);
        if (open.length === FDT_MAX_DEPTH) {
          throw bad('KHO_FDT_BADSTRUCTURE', `more than ${FDT_MAX_DEPTH} levels of nodes`, at);
        }
        const name = at + FDT_TOKEN_SIZE;
        const length = lengthUntil0(bytes, name, structureEnd);
        if (length < 0)
          throw bad('KHO_FDT_BADSTRUCTURE', `a node's name without end within ${MAX_NAME_LENGTH} bytes`, at);
        if (length === 0 && count > 0)
          throw bad('KHO_FDT_BADSTRUCTURE', 'a node without name that is not the root', at);
        const propertiesAt = name + align4(length + 1);
        nodes.push(at, propertiesAt, 0);
        open.push(count++);
        afterChild = false;
        at = propertiesAt;
        break;
      }
      case FDT_END_NODE: {
        const node = open.pop();
        if (node === undefined) throw bad('KHO_FDT_BADSTRUCTURE', 'the end of a node, though none is open', at);
        nodes[node * NODE_FIELDS + NODE_END] = count;
        afterChild = true;
        at += FDT_TOKEN_SIZE;
        break;
      }
      case FDT_PROP: {
        if (open.length === 0) throw bad('KHO_FDT_BADSTRUCTURE', 'a property outside of a node', at);
        if (afterChild) throw bad('KHO_FDT_BADSTRUCTURE', 'a property behind a child node', at);
        if (at + FDT_PROPERTY_HEADER_SIZE > structureEnd) throw cutToken(at);
        names.check(readWord(bytes, at + 2 * FDT_TOKEN_SIZE), at);
        const length = readWord(bytes, at + FDT_TOKEN_SIZE);
        if (length > structureEnd - at - FDT_PROPERTY_HEADER_SIZE) {
          throw bad('KHO_FDT_BADSTRUCTURE', `a property of ${length} bytes, which ends after the structure block`, at);
        }
        at += FDT_PROPERTY_HEADER_SIZE + align4(length);
        break;
      }
      case FDT_NOP:
        at += FDT_TOKEN_SIZE;
        break;
      case FDT_END:
        if (open.length > 0)
          throw bad('KHO_FDT_BADSTRUCTURE', `the end of the tree with ${open.length} nodes open`, at);
        if (count === 0) throw bad('KHO_FDT_BADSTRUCTURE', 'the end of the tree without a root node', at);
        return nodes;
      default:
        throw bad('KHO_FDT_BADSTRUCTURE', `0x${token.toString(16)}, which is no token,`, at);
    }
  }
  throw cutToken(at);
}

/** Checks name offsets, each distinct one once. */
class PropertyNames {
  readonly #layout: Layout;
  readonly #good = new Set<number>();

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  check(offset: number, propertyAt: number): void {
    if (this.#good.has(offset)) return;
    const { bytes, stringsAt, stringsEnd } = this.#layout;
    const length = offset < stringsEnd - stringsAt ? lengthUntil0(bytes, stringsAt + offset, stringsEnd) : -1;
    if (length <= 0) {
      const what =
        length === 0 ? 'is empty' : `is outside of the strings block or has no end within ${MAX_NAME_LENGTH} bytes`;
      throw bad('KHO_FDT_BADSTRUCTURE', `a property whose name, string ${offset}, ${what},`, propertyAt);
    }
    this.#good.add(offset);
  }
}

/** Bytes before the next NUL; -1 if there is none before `end` or the name would be too long. */
export function lengthUntil0(bytes: Uint8Array, at: number, end: number): number {
  const bound = Math.min(end, at + MAX_NAME_LENGTH + 1);
  for (let i = at; i < bound; i++) if (bytes[i] === 0) return i - at;
  return -1;
}

function cutToken(at: number): KhoError {
  return bad('KHO_FDT_BADSTRUCTURE', 'the structure block ends without an END token', at);
}

function bad(code: KhoErrorCode, what: string, offset: number): KhoError {
  return new KhoError(code, `${what} at offset ${offset}`, { offset });
}
