import { KhoError } from '../errors.js';
import {
  align4,
  FDT_BEGIN_NODE_WIRE,
  FDT_END_NODE_WIRE,
  FDT_END_WIRE,
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
  FDT_LAST_COMPATIBLE_VERSION,
  FDT_MAGIC,
  FDT_PROP_WIRE,
  FDT_RESERVATION_SIZE,
  FDT_VERSION,
  swap32,
} from '../fdt/index.js';
import { type FdtFrame, type InsertedProperty, type RenderedBlob, type RenderedFrame, shardFrame } from './frame.js';
import { type NodeRef, PROPERTY_LENGTH, PROPERTY_NAME, PROPERTY_TAG, PROPERTY_VALUE } from './layout.js';
import { NodeRenderer } from './node-renderer.js';
import { type Collected, nodeWords, ShardCollector } from './shard-collector.js';
import type { Stage } from './stage.js';

/**
 * Turns the stage into FDTs: mode `hash`'s way. Single-threaded, after all writers are done.
 *
 * Two passes for each FDT: the first, {@link ShardCollector}, finds the order and adds up the size; the second, {@link NodeRenderer},
 * writes every byte once. Property names get their string offsets in sorted order, so the blob does not depend on who
 * interned a name first.
 *
 * Nothing is allocated for a node. Cost, warm, with 10 properties of 8 bytes a node: about 8 ns a property (`npm run bench`)
 * for shards in wire order (layout.ts), about 11 for others.
 */
export class Finalizer {
  readonly #stage: Stage;
  readonly #collector: ShardCollector;
  readonly #renderer: NodeRenderer;
  /** By name id: the string offset in the FDT being made, in wire order. Only those of names in use have a meaning. */
  readonly #offsets: Int32Array;
  /** Properties of the frame that were written. */
  #properties = 0;
  /** Of the FDT being made: the string offset of each name in its frame, in wire order; what its shards come to. */
  #frameOffsets = new Map<string, number>();
  #collected = new Map<FdtFrame, Collected>();
  #parts = new Map<string, RenderedBlob>();

  constructor(stage: Stage) {
    this.#stage = stage;
    this.#collector = new ShardCollector(stage);
    this.#offsets = new Int32Array(stage.nameCount);
    this.#renderer = new NodeRenderer(stage.words, this.#collector.links, this.#offsets);
  }

  /** Writes an FDT whose root has this compatible, and these shards below it. See {@link renderFrame}. */
  render(shards: readonly number[], compatible: string, target: Uint8Array): RenderedBlob {
    return this.renderFrame(shardFrame('', compatible, shards), target);
  }

  /**
   * Writes an FDT with this frame, and in it what its shards wrote, in their order, into `target` (4-byte aligned).
   *
   * KHO_EEXIST for a property that two shards gave one node, or that is the frame's to insert; KHO_EINVAL for siblings
   * that libfdt could not tell apart; both name the driver if it is a node of the frame. KHO_ENOSPC if `target` is too
   * small.
   */
  renderFrame(frame: FdtFrame, target: Uint8Array): RenderedFrame {
    this.#collector.begin();
    this.#collected = new Map();
    this.#parts = new Map();
    const ids: number[] = [];
    const frameNames = new Set<string>();
    const structWords = this.#measure(frame, ids, frameNames) + 1; // and the tag that ends the block
    const strings = this.#assignOffsets(ids, frameNames);
    const structAt = FDT_HEADER_SIZE + FDT_RESERVATION_SIZE;
    const stringsAt = structAt + structWords * 4;
    const size = stringsAt + strings.length;
    if (size > target.length) {
      throw new KhoError('KHO_ENOSPC', `the FDT has ${size} bytes, but only ${target.length} were reserved`, { size });
    }
    const out = new Int32Array(target.buffer, target.byteOffset, Math.floor(target.length / 4));
    writeHeader(out, size, structAt, stringsAt, strings.length);
    this.#properties = 0;
    this.#renderer.properties = 0;
    const end = this.#renderFrameNode(frame, target, out, structAt / 4);
    out[end] = FDT_END_WIRE;
    target.set(strings, stringsAt);
    let nodes = 0;
    for (const part of this.#collected.values()) nodes += part.nodes;
    return {
      size,
      nodes: nodes + countNodes(frame),
      properties: this.#properties + this.#renderer.properties,
      parts: this.#parts,
    };
  }

  /** First pass over a node of the frame: its words in wire form, with all that comes below it. */
  #measure(frame: FdtFrame, ids: number[], frameNames: Set<string>): number {
    let words = nodeWords(frame.name.length);
    for (const [name, value] of frame.properties) {
      frameNames.add(name);
      words += valueWords(value);
    }
    for (const child of frame.children.values()) words += this.#measure(child, ids, frameNames);
    if (frame.shards === undefined) return words;
    try {
      const collected = this.#collector.collect(frame.shards);
      this.#collected.set(frame, collected);
      this.#collector.useNames(frame.shards, ids);
      words += collected.words;
      if (frame.insert !== undefined) {
        frameNames.add(frame.insert.name);
        words += this.#measureInsert(collected, frame.insert, ids);
      }
      return words;
    } catch (error) {
      throw frame.name === '' ? error : KhoError.from(error).with({ driver: frame.name });
    }
  }

  #measureInsert(collected: Collected, { name, values }: InsertedProperty, ids: readonly number[]): number {
    if (ids.some((id) => this.#stage.nameText(id) === name)) {
      const text = `a shard wrote a property '${name}', which only the core may give to a node of this FDT`;
      throw new KhoError('KHO_EEXIST', text, { property: name });
    }
    let words = 0;
    for (const ref of this.#collector.topNodes(collected)) {
      const value = values.get(this.#stage.nodeName(ref));
      if (value !== undefined) words += valueWords(value);
    }
    return words;
  }

  /** Gives every used name its place in the strings block, sorted, and returns the block. */
  #assignOffsets(ids: readonly number[], frameNames: ReadonlySet<string>): Uint8Array {
    const idOf = new Map(ids.map((id): [string, number] => [this.#stage.nameText(id), id]));
    const used = [...new Set([...idOf.keys(), ...frameNames])].sort(); // by character codes, as the other modes do
    const block = new Uint8Array(used.reduce((sum, name) => sum + name.length + 1, 0));
    this.#frameOffsets = new Map();
    let at = 0;
    for (const name of used) {
      const id = idOf.get(name);
      if (id !== undefined) this.#offsets[id] = swap32(at);
      if (frameNames.has(name)) this.#frameOffsets.set(name, swap32(at));
      for (let index = 0; index < name.length; index++) block[at++] = name.charCodeAt(index);
      at++;
    }
    return block;
  }

  /** Second pass: writes a node of the frame and all below it at word `start`; returns where it ends. */
  #renderFrameNode(frame: FdtFrame, target: Uint8Array, out: Int32Array, start: number): number {
    const before = this.#properties + this.#renderer.properties;
    let to = start;
    out[to++] = FDT_BEGIN_NODE_WIRE;
    to = putText(frame.name, target, out, to);
    for (const [name, value] of frame.properties) to = this.#putProperty(name, value, target, out, to);
    for (const child of frame.children.values()) to = this.#renderFrameNode(child, target, out, to);
    const collected = this.#collected.get(frame);
    if (collected !== undefined) {
      const { insert } = frame;
      const insertInto = (ref: NodeRef, at: number): number => {
        const value = insert?.values.get(this.#stage.nodeName(ref));
        return insert && value ? this.#putProperty(insert.name, value, target, out, at) : at;
      };
      to = this.#renderer.render(collected, out, to, insert && insertInto);
    }
    out[to++] = FDT_END_NODE_WIRE;
    if (collected !== undefined) {
      const [nodes, properties] = [collected.nodes + 1, this.#properties + this.#renderer.properties - before];
      this.#parts.set(frame.name, { size: (to - start) * 4, nodes, properties });
    }
    return to;
  }

  #putProperty(name: string, value: Uint8Array, target: Uint8Array, out: Int32Array, start: number): number {
    const end = start + valueWords(value);
    out[end - 1] = 0; // what pads the value to words
    out[start + PROPERTY_TAG] = FDT_PROP_WIRE;
    out[start + PROPERTY_LENGTH] = swap32(value.length);
    out[start + PROPERTY_NAME] = this.#frameOffsets.get(name) ?? 0;
    target.set(value, (start + PROPERTY_VALUE) * 4);
    this.#properties++;
    return end;
  }
}

/** Words of a property of the frame's. */
function valueWords(value: Uint8Array): number {
  return PROPERTY_VALUE + align4(value.length) / 4;
}

function countNodes(frame: FdtFrame): number {
  let nodes = 1;
  for (const child of frame.children.values()) nodes += countNodes(child);
  return nodes;
}

/** Writes a name with its NUL, padded to words, at word `at`; returns where it ends. */
function putText(text: string, target: Uint8Array, out: Int32Array, at: number): number {
  const end = at + (text.length >>> 2) + 1;
  out[end - 1] = 0;
  for (let index = 0; index < text.length; index++) target[at * 4 + index] = text.charCodeAt(index);
  return end;
}

function writeHeader(out: Int32Array, size: number, structAt: number, stringsAt: number, stringsSize: number): void {
  const field = (offset: number, value: number): void => {
    out[offset / 4] = swap32(value);
  };
  field(FDT_HEADER_MAGIC, FDT_MAGIC);
  field(FDT_HEADER_TOTALSIZE, size);
  field(FDT_HEADER_OFF_DT_STRUCT, structAt);
  field(FDT_HEADER_OFF_DT_STRINGS, stringsAt);
  field(FDT_HEADER_OFF_MEM_RSVMAP, FDT_HEADER_SIZE);
  field(FDT_HEADER_VERSION, FDT_VERSION);
  field(FDT_HEADER_LAST_COMP_VERSION, FDT_LAST_COMPATIBLE_VERSION);
  field(FDT_HEADER_BOOT_CPUID_PHYS, 0);
  field(FDT_HEADER_SIZE_DT_STRINGS, stringsSize);
  field(FDT_HEADER_SIZE_DT_STRUCT, stringsAt - structAt);
  for (let word = FDT_HEADER_SIZE / 4; word < structAt / 4; word++) out[word] = 0; // the empty reservation map
}
