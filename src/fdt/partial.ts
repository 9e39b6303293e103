import { KhoError, type KhoErrorCode } from '../errors.js';
import type { DtsNode, DtsProperty, DtsTree } from './dts.js';
import { readU64 } from './integers.js';
import type { FdtReservation } from './reader.js';
import { lengthUntil0, MAX_NAME_LENGTH, readWord } from './walk.js';
import {
  align4,
  FDT_BEGIN_NODE,
  FDT_END,
  FDT_END_NODE,
  FDT_HEADER_MAGIC,
  FDT_HEADER_OFF_DT_STRINGS,
  FDT_HEADER_OFF_DT_STRUCT,
  FDT_HEADER_OFF_MEM_RSVMAP,
  FDT_HEADER_SIZE,
  FDT_HEADER_SIZE_DT_STRINGS,
  FDT_HEADER_SIZE_DT_STRUCT,
  FDT_HEADER_TOTALSIZE,
  FDT_MAGIC,
  FDT_MAX_DEPTH,
  FDT_NOP,
  FDT_PROP,
  FDT_PROPERTY_HEADER_SIZE,
  FDT_RESERVATION_SIZE,
  FDT_TOKEN_SIZE,
} from './wire.js';

/** A property as far as it is there. */
export interface PartialProperty extends DtsProperty {
  /** The name; `string-N` if the strings block does not hold string N. */
  readonly name: string;
  /** The bytes that are there. */
  readonly value: Uint8Array;
  /** What is missing of it, if anything is. */
  readonly note?: string;
}

/** A node as far as it is there. */
export class PartialNode implements DtsNode {
  readonly name: string;
  /** Why nothing follows what is there; absent for a whole node. */
  note?: string;
  readonly #properties: PartialProperty[] = [];
  readonly #children: PartialNode[] = [];

  /** @internal */
  constructor(name: string) {
    this.name = name;
  }

  properties(): readonly PartialProperty[] {
    return this.#properties;
  }

  children(): readonly PartialNode[] {
    return this.#children;
  }

  /** @internal */
  addProperty(property: PartialProperty): void {
    this.#properties.push(property);
  }

  /** @internal */
  addChild(child: PartialNode): void {
    this.#children.push(child);
  }
}

/** What could be read of a blob that {@link FdtReader} refuses. */
export interface PartialFdt extends DtsTree {
  /** Bytes of the blob that are there. */
  readonly size: number;
  /** Bytes that it should have, as its header says; undefined if the header does not say so any more. */
  readonly totalSize: number | undefined;
  /** Undefined if nothing of the structure block is there. */
  readonly root: PartialNode | undefined;
  /** Everything that is missing or wrong. Empty only for a whole blob. */
  readonly problems: readonly KhoError[];
}

/**
 * Reads as much of a blob as there is: cut short, as debugfs of Linux 7.2 delivers `kho/out/fdt`, or damaged. The header
 * leads to the blocks; of the structure block everything up to the first token that is missing or wrong; names of
 * properties whose strings are missing are `string-N`. {@link FdtReader.open} judges whole blobs, this judges nothing.
 *
 * KHO_FDT_BADMAGIC if it is no FDT, KHO_FDT_TRUNCATED if it has not even a magic; nothing else is thrown. One pass.
 */
export function readPartialFdt(bytes: Uint8Array): PartialFdt {
  return new PartialReader(bytes).read();
}

class PartialReader {
  readonly #bytes: Uint8Array;
  readonly #totalSize: number | undefined;
  readonly #problems: KhoError[] = [];
  readonly #stringsAt: number;
  readonly #stringsEnd: number;
  readonly #missingStrings = new Set<number>();

  constructor(given: Uint8Array) {
    if (given.length < FDT_TOKEN_SIZE) {
      throw problem('KHO_FDT_TRUNCATED', `${given.length} bytes are too few for a flattened device tree: cut short`, 0);
    }
    if (readWord(given, FDT_HEADER_MAGIC) !== FDT_MAGIC) {
      throw problem('KHO_FDT_BADMAGIC', 'bad magic, not a flattened device tree', FDT_HEADER_MAGIC);
    }
    const said =
      given.length >= FDT_HEADER_TOTALSIZE + FDT_TOKEN_SIZE ? readWord(given, FDT_HEADER_TOTALSIZE) : undefined;
    // A totalsize that not even the header fits into is wrong; then what is there counts.
    const size = said !== undefined && said >= FDT_HEADER_SIZE ? Math.min(said, given.length) : given.length;
    this.#bytes = new Uint8Array(given.buffer, given.byteOffset, size);
    this.#totalSize = said;
    if (said !== undefined && said > given.length) {
      this.#note('KHO_FDT_TRUNCATED', `cut short: ${given.length} of ${said} bytes`);
    }
    const strings = this.#field(FDT_HEADER_OFF_DT_STRINGS) ?? size;
    const stringsSize = this.#field(FDT_HEADER_SIZE_DT_STRINGS) ?? 0;
    this.#stringsAt = Math.min(strings, size);
    this.#stringsEnd = Math.min(strings + stringsSize, size);
  }

  read(): PartialFdt {
    const reservations = [...this.#reservations()];
    const root = this.#structure();
    if (this.#missingStrings.size > 0) {
      const where = this.#stringsAt === this.#bytes.length ? 'the whole strings block' : 'part of the strings block';
      const names =
        this.#missingStrings.size === 1
          ? 'the name of 1 property'
          : `the names of ${this.#missingStrings.size} properties`;
      this.#note('KHO_FDT_TRUNCATED', `${where} is missing, and ${names} with it`);
    }
    return {
      size: this.#bytes.length,
      totalSize: this.#totalSize,
      root,
      problems: this.#problems,
      reservations: () => reservations,
    };
  }

  /** A word of the header, if it is there. */
  #field(at: number): number | undefined {
    return at + FDT_TOKEN_SIZE <= this.#bytes.length ? readWord(this.#bytes, at) : undefined;
  }

  *#reservations(): Generator<FdtReservation, void> {
    const first = this.#field(FDT_HEADER_OFF_MEM_RSVMAP);
    if (first === undefined) return;
    for (let at = first; at + FDT_RESERVATION_SIZE <= this.#bytes.length; at += FDT_RESERVATION_SIZE) {
      const size = readU64(this.#bytes, at + FDT_RESERVATION_SIZE / 2, 'big');
      if (size === 0n) return;
      yield { address: readU64(this.#bytes, at, 'big'), size };
    }
    this.#note('KHO_FDT_TRUNCATED', 'the end of the reservation map is missing');
  }

  #structure(): PartialNode | undefined {
    const bytes = this.#bytes;
    const start = this.#field(FDT_HEADER_OFF_DT_STRUCT);
    if (start === undefined) {
      this.#note('KHO_FDT_TRUNCATED', 'the header is not whole');
      return undefined;
    }
    const size = this.#field(FDT_HEADER_SIZE_DT_STRUCT);
    const end = size === undefined ? bytes.length : Math.min(start + size, bytes.length);
    const open: PartialNode[] = [];
    let root: PartialNode | undefined;
    let at = start;
    const stop = (code: KhoErrorCode, what: string): PartialNode | undefined => {
      this.#note(code, what, at);
      for (const node of open) node.note = 'the rest is missing';
      return root;
    };
    const cut = (what: string) => stop('KHO_FDT_TRUNCATED', `${what} is missing`);
    const wrong = (what: string) => stop('KHO_FDT_BADSTRUCTURE', what);
    // Each turn moves on by a token at least.
    while (at + FDT_TOKEN_SIZE <= end) {
      const parent = open.at(-1);
      switch (readWord(bytes, at)) {
        case FDT_BEGIN_NODE: {
          if (parent === undefined && root !== undefined) return wrong('a second root node');
          if (open.length === FDT_MAX_DEPTH) return wrong(`more than ${FDT_MAX_DEPTH} levels of nodes`);
          const name = at + FDT_TOKEN_SIZE;
          const length = lengthUntil0(bytes, name, end);
          if (length < 0 && end - name <= MAX_NAME_LENGTH) return cut("the rest of a node's name");
          if (length < 0) return wrong(`a node's name without end within ${MAX_NAME_LENGTH} bytes`);
          const node = new PartialNode(latin1(bytes, name, name + length));
          parent?.addChild(node);
          root ??= node;
          open.push(node);
          at = name + align4(length + 1);
          break;
        }
        case FDT_END_NODE:
          if (open.pop() === undefined) return wrong('the end of a node, though none is open');
          at += FDT_TOKEN_SIZE;
          break;
        case FDT_PROP: {
          if (parent === undefined) return wrong('a property outside of a node');
          const valueAt = at + FDT_PROPERTY_HEADER_SIZE;
          if (valueAt > end) return cut('the rest of a property');
          const length = readWord(bytes, at + FDT_TOKEN_SIZE);
          const there = Math.min(length, end - valueAt);
          parent.addProperty(this.#property(at, bytes.subarray(valueAt, valueAt + there), length));
          if (there < length) return cut("the rest of a property's value");
          at = valueAt + align4(length);
          break;
        }
        case FDT_NOP:
          at += FDT_TOKEN_SIZE;
          break;
        case FDT_END:
          if (open.length > 0) return wrong(`the end of the tree with ${open.length} nodes open`);
          if (root === undefined) return wrong('the end of the tree without a root node');
          return root;
        default:
          return wrong(`0x${readWord(bytes, at).toString(16)}, which is no token,`);
      }
    }
    return cut(root === undefined ? 'the whole structure block' : 'the rest of the structure block');
  }

  #property(at: number, value: Uint8Array, length: number): PartialProperty {
    const string = readWord(this.#bytes, at + 2 * FDT_TOKEN_SIZE);
    const nameAt = this.#stringsAt + string;
    const nameLength = nameAt < this.#stringsEnd ? lengthUntil0(this.#bytes, nameAt, this.#stringsEnd) : -1;
    const notes: string[] = [];
    if (nameLength <= 0) {
      this.#missingStrings.add(string);
      notes.push('its name is missing');
    }
    if (value.length < length) notes.push(`${value.length} of ${length} bytes`);
    return {
      name: nameLength > 0 ? latin1(this.#bytes, nameAt, nameAt + nameLength) : `string-${string}`,
      value,
      ...(notes.length === 0 ? {} : { note: notes.join(', ') }),
    };
  }

  #note(code: KhoErrorCode, what: string, offset?: number): void {
    this.#problems.push(problem(code, what, offset));
  }
}

/** Text of one character per byte. */
function latin1(bytes: Uint8Array, from: number, to: number): string {
  return String.fromCharCode(...bytes.subarray(from, to));
}

/** Without an offset it is the end of what is there. */
function problem(code: KhoErrorCode, what: string, offset?: number): KhoError {
  return offset === undefined
    ? new KhoError(code, what)
    : new KhoError(code, `${what} at offset ${offset}`, { offset });
}
