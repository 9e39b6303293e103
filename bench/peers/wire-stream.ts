import { FDT_BEGIN_NODE_WIRE, FDT_END_NODE_WIRE, FDT_PROP_WIRE, swap32 } from 'khorus/fdt';
import type { DirectWriter } from './direct-writer.js';

const LENGTH_8_WIRE = swap32(8);
const LENGTH_8_WORDS = 2;

/** What a worker hands over: the structure block of its instances, with ids of `names` for string offsets. */
export interface WireStream {
  readonly buffer: ArrayBuffer;
  readonly words: number;
  readonly names: readonly string[];
  /** Where each instance's part begins, in words. */
  readonly instances: readonly (readonly [name: string, start: number])[];
}

/** A peer: each worker writes FDT structure into a buffer of its own, which then goes to the main thread as it is. */
export class StreamWriter {
  readonly #words: Int32Array;
  readonly #buffer: ArrayBuffer;
  readonly #ids = new Map<string, number>();
  readonly #names: string[] = [];
  readonly #instances: [string, number][] = [];
  #at = 0;

  constructor(buffer: ArrayBuffer) {
    this.#buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  beginInstance(name: string): void {
    this.#instances.push([name, this.#at]);
    this.beginNode(name);
  }

  nameId(name: string): number {
    const known = this.#ids.get(name);
    if (known !== undefined) return known;
    const id = this.#names.push(name) - 1;
    this.#ids.set(name, id);
    return id;
  }

  beginNode(name: string): void {
    const words = this.#words;
    const length = name.length;
    let to = this.#at;
    words[to++] = FDT_BEGIN_NODE_WIRE;
    for (let at = 0; at <= length; at += 4) {
      let packed = at < length ? name.charCodeAt(at) : 0;
      if (at + 1 < length) packed |= name.charCodeAt(at + 1) << 8;
      if (at + 2 < length) packed |= name.charCodeAt(at + 2) << 16;
      if (at + 3 < length) packed |= name.charCodeAt(at + 3) << 24;
      words[to++] = packed;
    }
    this.#at = to;
  }

  u64(name: number, high: number, low: number): void {
    const words = this.#words;
    const at = this.#at;
    words[at] = FDT_PROP_WIRE;
    words[at + 1] = LENGTH_8_WIRE;
    words[at + 2] = name;
    words[at + 3] = low;
    words[at + 4] = high;
    this.#at = at + 5;
  }

  endNode(): void {
    this.#words[this.#at++] = FDT_END_NODE_WIRE;
  }

  finish(): WireStream {
    return { buffer: this.#buffer, words: this.#at, names: this.#names, instances: this.#instances };
  }
}

/** The main thread's part: copies the streams in the order of the instances and puts string offsets for ids. */
export function writeStreams(writer: DirectWriter, instances: readonly string[], streams: readonly WireStream[]): void {
  const places = new Map<string, { words: Int32Array; start: number; end: number; offsets: Int32Array }>();
  for (const { buffer, words: used, names, instances: parts } of streams) {
    const words = new Int32Array(buffer);
    const offsets = Int32Array.from(names, (name) => writer.nameOffset(writer.nameId(name)));
    for (const [index, [name, start]] of parts.entries()) {
      places.set(name, { words, start, end: parts[index + 1]?.[1] ?? used, offsets });
    }
  }
  for (const instance of instances) {
    const place = places.get(instance);
    if (place === undefined) throw new Error(`nobody sent ${instance}`);
    copyStream(writer, place.words, place.start, place.end, place.offsets);
  }
}

function copyStream(writer: DirectWriter, words: Int32Array, start: number, end: number, offsets: Int32Array): void {
  const out = writer.words;
  let to = writer.at;
  for (let from = start; from < end; ) {
    const word = words[from++] as number;
    out[to++] = word;
    if (word === FDT_END_NODE_WIRE) continue;
    if (word === FDT_PROP_WIRE) {
      const length = words[from++] as number;
      out[to++] = length;
      out[to++] = offsets[words[from++] as number] as number;
      const next = from + (length === LENGTH_8_WIRE ? LENGTH_8_WORDS : (swap32(length) + 3) >>> 2);
      while (from < next) out[to++] = words[from++] as number;
      continue;
    }
    // The name of a node, up to the word that ends with a NUL.
    let text: number;
    do {
      text = words[from++] as number;
      out[to++] = text;
    } while (text >>> 24 !== 0);
  }
  writer.at = to;
}
