import { KhoError } from '../errors.js';
import { writeHeader } from '../fdt/header.js';
import {
  FDT_BEGIN_NODE_WIRE,
  FDT_END_NODE_WIRE,
  FDT_END_WIRE,
  FDT_HEADER_SIZE,
  FDT_PROP_WIRE,
  FDT_RESERVATION_SIZE,
  FDT_TOKEN_SIZE,
  nodeSize,
  propertySize,
  wire32,
} from '../fdt/index.js';
import type { FdtFrame, RenderedBlob, RenderedFrame } from '../hashstage/index.js';
import { collectInstances, type InstanceBlocks, propertiesAt } from './instance-blocks.js';
import { endsName, packedWords, packName, unpackName } from './packed-name.js';
import { PROPERTY_LENGTH, PROPERTY_NAME, PROPERTY_VALUE, propertyWords } from './struct-block.js';
import type { StructBlockSink } from './struct-block-sink.js';
import type { StructBlocks } from './struct-blocks.js';

const STRUCT_AT = FDT_HEADER_SIZE + FDT_RESERVATION_SIZE;
// Constants of its own module are part of the code that V8 makes; those of others are loaded each time.
const PROP = FDT_PROP_WIRE;
const BEGIN_NODE = FDT_BEGIN_NODE_WIRE;
const LENGTH = PROPERTY_LENGTH;
const NAME = PROPERTY_NAME;
const VALUE = PROPERTY_VALUE;
/** Words of a property of 8 bytes. */
const WORDS_8 = PROPERTY_VALUE + 2;
const LAST_8 = WORDS_8 - 1;
const LENGTH_8_WIRE = wire32(8);
/** From this many words on, one call copies a value faster than a loop. */
const LARGE_VALUE = 32;

/**
 * Writes an FDT with this frame, and in it what its shards wrote to `blocks`, in their order, into `target` (4-byte
 * aligned): the counterpart of the finalizer in modes without a stage. A node that several shards opened stands where the
 * first of them opened it. Shards of one instance stand together in a frame, and none of them is left out; a shard
 * without a sink wrote nothing. They can go on afterwards.
 *
 * KHO_EEXIST for a property that two shards gave one node, or that is the frame's to insert; KHO_EINVAL for siblings that
 * libfdt could not tell apart; both name the driver if it is a node of the frame. KHO_ENOSPC if `target` is too small.
 */
export function renderStructBlocks(
  blocks: StructBlocks,
  frame: FdtFrame,
  sinkOf: (shard: number) => StructBlockSink | undefined,
  target: Uint8Array,
): RenderedFrame {
  const end = blocks.handTo(undefined);
  try {
    return new Rendering(blocks, frame, sinkOf).write(target);
  } finally {
    blocks.cutAt(end); // behind it stand copies of merged trees
  }
}

class Rendering {
  readonly #blocks: StructBlocks;
  readonly #frame: FdtFrame;
  readonly #words: Int32Array;
  /** What is to be copied, for each node of the frame that has shards. */
  readonly #instances = new Map<FdtFrame, readonly InstanceBlocks[]>();
  readonly #parts = new Map<string, RenderedBlob>();
  /** By name id: the offset in the strings block as it stands in the FDT. Only those of names in use have a meaning. */
  readonly #offsets: Int32Array;
  readonly #strings: Uint8Array;
  #target: Uint8Array = new Uint8Array(0);
  #out: Int32Array = new Int32Array(0);
  #to = 0;
  #nodes = 0;
  #properties = 0;

  constructor(blocks: StructBlocks, frame: FdtFrame, sinkOf: (shard: number) => StructBlockSink | undefined) {
    this.#blocks = blocks;
    this.#frame = frame;
    this.#collect(frame, sinkOf);
    this.#words = blocks.words;
    const used = this.#usedNames();
    this.#offsets = new Int32Array(blocks.names.count);
    this.#strings = this.#makeStrings(used);
  }

  write(target: Uint8Array): RenderedFrame {
    const structureSize = this.#sizeOf(this.#frame) + FDT_TOKEN_SIZE; // and the tag that ends the block
    const stringsAt = STRUCT_AT + structureSize;
    const stringsSize = this.#strings.length;
    const size = stringsAt + stringsSize;
    if (size > target.length) {
      throw new KhoError('KHO_ENOSPC', `the FDT has ${size} bytes, but only ${target.length} were reserved`, { size });
    }
    const out = new Int32Array(target.buffer, target.byteOffset, Math.floor(target.length / FDT_TOKEN_SIZE));
    const reservationsAt = FDT_HEADER_SIZE;
    writeHeader(out, {
      totalSize: size,
      reservationsAt,
      structureAt: STRUCT_AT,
      structureSize,
      stringsAt,
      stringsSize,
    });
    out.fill(0, reservationsAt / FDT_TOKEN_SIZE, STRUCT_AT / FDT_TOKEN_SIZE); // there are none
    this.#target = target;
    this.#out = out;
    this.#to = STRUCT_AT / FDT_TOKEN_SIZE;
    this.#putFrame(this.#frame);
    out[this.#to] = FDT_END_WIRE;
    target.set(this.#strings, stringsAt);
    return { size, nodes: this.#nodes, properties: this.#properties, parts: this.#parts };
  }

  #collect(frame: FdtFrame, sinkOf: (shard: number) => StructBlockSink | undefined): void {
    for (const child of frame.children.values()) this.#collect(child, sinkOf);
    if (frame.shards === undefined) return;
    const sinks: StructBlockSink[] = [];
    for (const shard of frame.shards) {
      const sink = sinkOf(shard);
      if (sink !== undefined) sinks.push(sink);
    }
    try {
      this.#instances.set(frame, collectInstances(this.#blocks, sinks));
    } catch (error) {
      throw concerning(frame, error);
    }
  }

  /** The ids of all names in the FDT, each once. */
  #usedNames(): number[] {
    const { names } = this.#blocks;
    const ofFrame = (frame: FdtFrame): number[] => [
      ...[...frame.properties.keys()].map((name) => names.id(name)),
      ...[...frame.children.values()].flatMap(ofFrame),
      ...(frame.insert === undefined ? [] : [names.id(frame.insert.name)]),
    ];
    const used = new Set(ofFrame(this.#frame));
    this.#blocks.growMarks();
    const { marks, links } = this.#blocks;
    const mark = this.#blocks.nextMark();
    for (const [frame, instances] of this.#instances) {
      const inserted = frame.insert === undefined ? undefined : names.id(frame.insert.name);
      for (const blocks of instances) {
        for (const block of blocks) {
          for (let link = block.names; link !== 0; link = links[link + 1]) {
            const name = links[link];
            if (name === inserted) throw concerning(frame, notToBeWritten(names.text(name)));
            if (marks[name] !== mark) used.add(name);
            marks[name] = mark;
          }
        }
      }
    }
    return [...used];
  }

  /** Gives every used name its place in the strings block, in sorted order, and returns the block. */
  #makeStrings(ids: readonly number[]): Uint8Array {
    const { names } = this.#blocks;
    const used = ids.map((id): [string, number] => [names.text(id), id]).sort(([a], [b]) => (a < b ? -1 : 1));
    const strings = new Uint8Array(used.reduce((sum, [name]) => sum + name.length + 1, 0));
    let at = 0;
    for (const [name, id] of used) {
      this.#offsets[id] = wire32(at);
      for (let index = 0; index < name.length; index++) strings[at++] = name.charCodeAt(index);
      at++; // its NUL
    }
    return strings;
  }

  /** Bytes of a node of the frame in the structure block, with all that comes below it. */
  #sizeOf(frame: FdtFrame): number {
    let size = nodeSize(frame.name.length);
    for (const value of frame.properties.values()) size += propertySize(value.length);
    for (const child of frame.children.values()) size += this.#sizeOf(child);
    for (const blocks of this.#instances.get(frame) ?? []) {
      let words = propertiesAt(this.#words, blocks[0]) - blocks[0].start + 1;
      for (const block of blocks) words += block.end - propertiesAt(this.#words, block) + block.depth;
      const inserted = this.#insertedInto(frame, blocks);
      size += words * FDT_TOKEN_SIZE + (inserted === undefined ? 0 : propertySize(inserted.length));
    }
    return size;
  }

  #insertedInto({ insert }: FdtFrame, [{ start }]: InstanceBlocks): Uint8Array | undefined {
    return insert?.values.get(unpackName(this.#words, start + 1));
  }

  #putFrame(frame: FdtFrame): void {
    const [start, nodes, properties] = [this.#to, this.#nodes, this.#properties];
    this.#beginNode(frame.name);
    for (const [name, value] of frame.properties) this.#putProperty(name, value);
    for (const child of frame.children.values()) this.#putFrame(child);
    for (const blocks of this.#instances.get(frame) ?? []) this.#putInstance(frame, blocks);
    this.#endNodes(1);
    if (frame.shards === undefined) return;
    this.#parts.set(frame.name, {
      size: (this.#to - start) * FDT_TOKEN_SIZE,
      nodes: this.#nodes - nodes,
      properties: this.#properties - properties,
    });
  }

  #putInstance(frame: FdtFrame, blocks: InstanceBlocks): void {
    const [first] = blocks;
    const firstPropertyAt = propertiesAt(this.#words, first);
    this.#copy(first.start, firstPropertyAt);
    const inserted = this.#insertedInto(frame, blocks);
    if (inserted !== undefined && frame.insert !== undefined) this.#putProperty(frame.insert.name, inserted);
    this.#copy(firstPropertyAt, first.childrenAt);
    for (const block of blocks) if (block !== first) this.#copy(propertiesAt(this.#words, block), block.childrenAt);
    for (const block of blocks) {
      this.#copy(block.childrenAt, block.end);
      this.#endNodes(block.depth);
    }
    this.#endNodes(1);
  }

  #beginNode(name: string): void {
    this.#out[this.#to++] = BEGIN_NODE;
    packName(this.#out, this.#to, name);
    this.#to += packedWords(name.length);
    this.#nodes++;
  }

  #endNodes(count: number): void {
    for (let left = count; left > 0; left--) this.#out[this.#to++] = FDT_END_NODE_WIRE;
  }

  #putProperty(name: string, value: Uint8Array): void {
    const out = this.#out;
    const at = this.#to;
    this.#to = at + propertySize(value.length) / FDT_TOKEN_SIZE;
    out[this.#to - 1] = 0; // the padding
    out[at] = PROP;
    out[at + LENGTH] = wire32(value.length);
    out[at + NAME] = this.#offsets[this.#blocks.names.id(name)];
    this.#target.set(value, (at + VALUE) * FDT_TOKEN_SIZE);
    this.#properties++;
  }

  /** Copies these words, with offsets in place of name ids. */
  #copy(start: number, end: number): void {
    const words = this.#words;
    const out = this.#out;
    const shift = this.#to - start;
    let at = start;
    while (at < end) {
      const others = this.#copyWide(at, end, shift);
      this.#properties += (others - at) / WORDS_8;
      at = others;
      if (at >= end) break;
      if (words[at] === PROP) at = this.#copyProperty(at, shift);
      else if (words[at] === BEGIN_NODE) at = this.#copyBeginNode(at, shift);
      else {
        out[at + shift] = words[at];
        at++;
      }
    }
    this.#to = end + shift;
  }

  /**
   * Copies properties of 8 bytes, the usual ones, as long as they come, and returns where they end. It has a method of its
   * own, which is called for each node, because V8 makes better code of a method that is called often than of a long loop.
   */
  #copyWide(start: number, end: number, shift: number): number {
    const words = this.#words;
    const out = this.#out;
    const offsets = this.#offsets;
    let from = start;
    let to = start + shift;
    while (from < end && words[from] === PROP && words[from + LENGTH] === LENGTH_8_WIRE) {
      out[to] = PROP;
      out[to + LENGTH] = LENGTH_8_WIRE;
      out[to + NAME] = offsets[words[from + NAME]];
      out[to + VALUE] = words[from + VALUE];
      out[to + LAST_8] = words[from + LAST_8];
      from += WORDS_8;
      to += WORDS_8;
    }
    return from;
  }

  /** Copies a property of any size, and returns where it ends. */
  #copyProperty(start: number, shift: number): number {
    const words = this.#words;
    const out = this.#out;
    const end = start + propertyWords(words, start);
    out[start + shift] = PROP;
    out[start + shift + LENGTH] = words[start + LENGTH];
    out[start + shift + NAME] = this.#offsets[words[start + NAME]];
    const value = start + VALUE;
    if (end - value > LARGE_VALUE) out.set(words.subarray(value, end), value + shift);
    else for (let at = value; at < end; at++) out[at + shift] = words[at];
    this.#properties++;
    return end;
  }

  /** Copies the beginning of a node with its name, and returns where it ends. */
  #copyBeginNode(start: number, shift: number): number {
    const words = this.#words;
    const out = this.#out;
    out[start + shift] = BEGIN_NODE;
    let at = start + 1;
    do out[at + shift] = words[at];
    while (!endsName(words[at++]));
    this.#nodes++;
    return at;
  }
}

function concerning(frame: FdtFrame, error: unknown): unknown {
  return frame.name === '' ? error : KhoError.from(error).with({ driver: frame.name });
}

function notToBeWritten(name: string): KhoError {
  const text = `a shard wrote a property '${name}', which only the core may give to a node of this FDT`;
  return new KhoError('KHO_EEXIST', text, { property: name });
}
