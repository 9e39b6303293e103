import {
  FDT_BEGIN_NODE_WIRE,
  FDT_END_NODE_WIRE,
  FDT_END_WIRE,
  FDT_HEADER_SIZE,
  FDT_LAST_COMPATIBLE_VERSION,
  FDT_MAGIC,
  FDT_PROP_WIRE,
  FDT_RESERVATION_SIZE,
  FDT_VERSION,
  swap32,
} from 'khorus/fdt';

const STRUCT_AT = FDT_HEADER_SIZE + FDT_RESERVATION_SIZE;
const LENGTH_8_WIRE = swap32(8);

/**
 * A peer: one thread writes the FDT straight into memory that is there already, word by word, in one pass. Property names
 * are found in a Map; a name's place in the strings block is known when it is first used. No checks, no bound: it is the
 * least that a sequential writer in JavaScript can do.
 */
export class DirectWriter {
  /** By word; the structure block is written in place. */
  readonly words: Int32Array;
  /** Where the next word goes. */
  at = STRUCT_AT / 4;
  readonly #bytes: Uint8Array;
  readonly #ids = new Map<string, number>();
  readonly #names: string[] = [];
  /** By name id: its offset in the strings block, in wire order. */
  readonly #offsets: number[] = [];
  #stringsSize = 0;

  constructor(target: Uint8Array) {
    this.#bytes = target;
    this.words = new Int32Array(target.buffer, target.byteOffset, target.length >>> 2);
  }

  nameId(name: string): number {
    const known = this.#ids.get(name);
    if (known !== undefined) return known;
    const id = this.#names.push(name) - 1;
    this.#ids.set(name, id);
    this.#offsets.push(swap32(this.#stringsSize));
    this.#stringsSize += name.length + 1;
    return id;
  }

  /** The offset of a name's text, in wire order. */
  nameOffset(id: number): number {
    return this.#offsets[id] as number;
  }

  beginNode(name: string): void {
    const { words } = this;
    const length = name.length;
    let to = this.at;
    words[to++] = FDT_BEGIN_NODE_WIRE;
    for (let at = 0; at <= length; at += 4) {
      let packed = at < length ? name.charCodeAt(at) : 0;
      if (at + 1 < length) packed |= name.charCodeAt(at + 1) << 8;
      if (at + 2 < length) packed |= name.charCodeAt(at + 2) << 16;
      if (at + 3 < length) packed |= name.charCodeAt(at + 3) << 24;
      words[to++] = packed;
    }
    this.at = to;
  }

  u64(name: number, high: number, low: number): void {
    const { words, at } = this;
    words[at] = FDT_PROP_WIRE;
    words[at + 1] = LENGTH_8_WIRE;
    words[at + 2] = this.#offsets[name] as number;
    words[at + 3] = low;
    words[at + 4] = high;
    this.at = at + 5;
  }

  endNode(): void {
    this.words[this.at++] = FDT_END_NODE_WIRE;
  }

  /** Strings block and header; returns the size of the blob. */
  finish(): number {
    const { words } = this;
    words[this.at++] = FDT_END_WIRE;
    const stringsAt = this.at * 4;
    let to = stringsAt;
    for (const name of this.#names) {
      for (let index = 0; index < name.length; index++) this.#bytes[to++] = name.charCodeAt(index);
      this.#bytes[to++] = 0;
    }
    const header = [FDT_MAGIC, to, STRUCT_AT, stringsAt, FDT_HEADER_SIZE, FDT_VERSION, FDT_LAST_COMPATIBLE_VERSION, 0];
    header.push(this.#stringsSize, stringsAt - STRUCT_AT);
    for (const [index, value] of header.entries()) words[index] = swap32(value);
    words.fill(0, FDT_HEADER_SIZE / 4, STRUCT_AT / 4);
    return to;
  }
}
