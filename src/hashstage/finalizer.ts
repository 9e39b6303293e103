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
  siblingsConflict,
  swap32,
} from '../fdt/index.js';
import type { FdtFrame, InsertedProperty, RenderedBlob, RenderedFrame } from './frame.js';
import {
  FRAGMENT_DATA,
  FRAGMENT_NEXT,
  FRAGMENT_NODE,
  FRAGMENT_SAME,
  FRAGMENT_USED,
  NAMES_COUNT,
  NAMES_IDS,
  NAMES_NEXT,
  NODE_ID,
  NODE_LENGTH,
  NODE_PARENT,
  NODE_TEXT,
  type NodeRef,
  PROPERTY_LENGTH,
  PROPERTY_NAME,
  PROPERTY_TAG,
  PROPERTY_VALUE,
  SHARD_FIRST,
  SHARD_NAMES,
  SHARD_UNUSED_NAMES,
  SHARD_WORDS,
} from './layout.js';
import type { Stage } from './stage.js';
import { propertyWords } from './writer.js';

const LENGTH_8_WIRE = swap32(8);
/** From this many words on, one call copies a value faster than a loop. */
const LARGE_VALUE = 32;
const AT_SIGN = '@'.charCodeAt(0);

const encoder = new TextEncoder();

/** What the first pass over the shards of one node of the frame found. */
interface Collected {
  /** The first of their top nodes, 0 for none; the others follow by their links. */
  readonly top: NodeRef;
  /** Words of all their nodes, in wire form. */
  readonly words: number;
  readonly nodes: number;
}

/**
 * Turns the stage into FDTs: mode `hash`'s way. Single-threaded, after all writers are done.
 *
 * Two passes for each FDT: the first takes one step a fragment, links fragments to nodes and nodes to parents in the
 * order of the shards, checks what only shows when all shards are seen together, and adds up the size; the second writes
 * every byte once. Property names get their string offsets in sorted order, so the blob does not depend on who interned a
 * name first.
 *
 * Links are kept in arrays by node id, and nothing is allocated for a node. Cost, warm, with 10 properties of 8 bytes a
 * node: about 11 ns a property (`npm run bench`).
 */
export class Finalizer {
  readonly #stage: Stage;
  readonly #words: Int32Array;
  readonly #names: (string | undefined)[];
  /** By name id: the string offset in the blob being made, in wire order. Only those of names in use have a meaning. */
  readonly #offsets: Int32Array;
  /** By name id: the number of the blob that uses it, or of the node that last had it. */
  readonly #stamps: Int32Array;
  #stamp = 0;
  /** By node id: the number of the blob that has it, its first and last fragment, its shard. */
  readonly #blobs: Int32Array;
  readonly #first: Int32Array;
  readonly #last: Int32Array;
  readonly #shards: Int32Array;
  /** By node id: the first and last child, and the next sibling; refs of nodes. */
  readonly #child: Int32Array;
  readonly #lastChild: Int32Array;
  readonly #sibling: Int32Array;
  #blob = 0;
  #properties = 0;
  /** Of the FDT being made: the string offset of each name in its frame, in wire order; what its shards come to. */
  #frameOffsets = new Map<string, number>();
  #collected = new Map<FdtFrame, Collected>();
  #parts = new Map<string, RenderedBlob>();

  constructor(stage: Stage) {
    this.#stage = stage;
    this.#words = stage.words;
    this.#names = stage.names();
    this.#offsets = new Int32Array(this.#names.length);
    this.#stamps = new Int32Array(this.#names.length);
    const byNode = (): Int32Array => new Int32Array(stage.nodeCount);
    [this.#blobs, this.#first, this.#last, this.#shards] = [byNode(), byNode(), byNode(), byNode()];
    [this.#child, this.#lastChild, this.#sibling] = [byNode(), byNode(), byNode()];
  }

  /** Writes an FDT whose root has this compatible, and these shards below it. See {@link renderFrame}. */
  render(shards: readonly number[], compatible: string, target: Uint8Array): RenderedBlob {
    const properties = new Map([['compatible', encoder.encode(`${compatible}\0`)]]);
    return this.renderFrame({ name: '', properties, children: new Map(), shards }, target);
  }

  /**
   * Writes an FDT with this frame, and in it what its shards wrote, in their order, into `target` (4-byte aligned).
   *
   * KHO_EEXIST for a property that two shards gave one node, or that is the frame's to insert; KHO_EINVAL for siblings
   * that libfdt could not tell apart; both name the driver if it is a node of the frame. KHO_ENOSPC if `target` is too
   * small.
   */
  renderFrame(frame: FdtFrame, target: Uint8Array): RenderedFrame {
    this.#blob++;
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
    const end = this.#renderFrameNode(frame, target, out, structAt / 4);
    out[end] = FDT_END_WIRE;
    target.set(strings, stringsAt);
    let nodes = 0;
    for (const part of this.#collected.values()) nodes += part.nodes;
    return { size, nodes: nodes + countNodes(frame), properties: this.#properties, parts: this.#parts };
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
      const collected = this.#collect(frame.shards);
      this.#collected.set(frame, collected);
      this.#useNames(frame.shards, ids);
      words += collected.words;
      if (frame.insert !== undefined) {
        frameNames.add(frame.insert.name);
        words += this.#measureInsert(collected.top, frame.insert);
      }
      return words;
    } catch (error) {
      throw frame.name === '' ? error : KhoError.from(error).with({ driver: frame.name });
    }
  }

  #measureInsert(top: NodeRef, { name, values }: InsertedProperty): number {
    const id = this.#names.indexOf(name);
    if (id >= 0 && this.#stamps[id] === this.#blob) {
      const text = `a shard wrote a property '${name}', which only the core may give to a node of this FDT`;
      throw new KhoError('KHO_EEXIST', text, { property: name });
    }
    let words = 0;
    for (let ref = top; ref !== 0; ref = this.#sibling[this.#words[ref + NODE_ID]]) {
      const value = values.get(this.#stage.nodeName(ref));
      if (value !== undefined) words += valueWords(value);
    }
    return words;
  }

  /** First pass: one step for each fragment. */
  #collect(shards: readonly number[]): Collected {
    const words = this.#words;
    const blob = this.#blob;
    const [blobs, first, last, child, lastChild, sibling] = [
      this.#blobs,
      this.#first,
      this.#last,
      this.#child,
      this.#lastChild,
      this.#sibling,
    ];
    let top = 0;
    let lastTop = 0;
    let size = 0;
    let nodes = 0;
    const sharedNodes: NodeRef[] = [];
    const unitAddresses: NodeRef[] = [];
    for (const shard of shards) {
      let fragment = words[this.#stage.geometry.shardsAt + shard * SHARD_WORDS + SHARD_FIRST];
      for (; fragment !== 0; fragment = words[fragment + FRAGMENT_NEXT]) {
        const ref = words[fragment + FRAGMENT_NODE];
        if (ref === 0) continue;
        const id = words[ref + NODE_ID];
        size += words[fragment + FRAGMENT_USED];
        words[fragment + FRAGMENT_SAME] = 0;
        if (blobs[id] === blob) {
          words[last[id] + FRAGMENT_SAME] = fragment;
          last[id] = fragment;
          if (this.#shards[id] !== shard) {
            this.#shards[id] = shard;
            sharedNodes.push(ref);
          }
          continue;
        }
        blobs[id] = blob;
        first[id] = fragment;
        last[id] = fragment;
        child[id] = 0;
        sibling[id] = 0;
        this.#shards[id] = shard;
        nodes++;
        const length = words[ref + NODE_LENGTH];
        size += nodeWords(length);
        // The parent was opened before, by the same shard. A driver's root is no node of the stage.
        const parent = words[ref + NODE_PARENT];
        if (parent > 0) {
          const parentId = words[parent + NODE_ID];
          if (child[parentId] === 0) child[parentId] = ref;
          else sibling[words[lastChild[parentId] + NODE_ID]] = ref;
          lastChild[parentId] = ref;
        } else {
          if (top === 0) top = ref;
          else sibling[words[lastTop + NODE_ID]] = ref;
          lastTop = ref;
        }
        if (this.#hasUnitAddress(ref, length)) unitAddresses.push(ref);
      }
    }
    for (const ref of unitAddresses) this.#checkSiblings(ref, top);
    for (const ref of sharedNodes) this.#checkProperties(ref);
    return { top, words: size, nodes };
  }

  /** Finds a property that two shards gave the node; within one shard its writer saw to that. */
  #checkProperties(ref: NodeRef): void {
    const words = this.#words;
    const stamp = --this.#stamp; // below zero: blobs use the numbers above
    let fragment = this.#first[words[ref + NODE_ID]];
    for (; fragment !== 0; fragment = words[fragment + FRAGMENT_SAME]) {
      const end = fragment + FRAGMENT_DATA + words[fragment + FRAGMENT_USED];
      for (let at = fragment + FRAGMENT_DATA; at < end; at += propertyWords(words, at)) {
        const name = words[at + PROPERTY_NAME];
        if (this.#stamps[name] === stamp) {
          const path = this.#stage.nodePath(ref);
          const property = this.#names[name] ?? '';
          throw new KhoError('KHO_EEXIST', `two shards gave the node ${path} a property '${property}'`, {
            path,
            property,
          });
        }
        this.#stamps[name] = stamp;
      }
    }
  }

  #hasUnitAddress(ref: NodeRef, length: number): boolean {
    const start = (ref + NODE_TEXT) * 4;
    const { bytes } = this.#stage;
    for (let index = 0; index < length; index++) if (bytes[start + index] === AT_SIGN) return true;
    return false;
  }

  /** Names with a unit address are rare, so only they pay for a comparison with their siblings. */
  #checkSiblings(ref: NodeRef, top: NodeRef): void {
    const words = this.#words;
    const name = this.#stage.nodeName(ref);
    const parent = words[ref + NODE_PARENT];
    let other = parent > 0 ? this.#child[words[parent + NODE_ID]] : top;
    for (; other !== 0; other = this.#sibling[words[other + NODE_ID]]) {
      if (words[other + NODE_LENGTH] >= name.length) continue;
      const sibling = this.#stage.nodeName(other);
      if (sibling.includes('@') || !siblingsConflict(name, sibling)) continue;
      const path = this.#stage.nodePath(ref);
      throw new KhoError(
        'KHO_EINVAL',
        `the node ${path} cannot stand beside '${sibling}': libfdt takes one for the other`,
        { path },
      );
    }
  }

  /** Adds the ids of the names that properties of these shards have: from the shards' lists, or from the properties. */
  #useNames(shards: readonly number[], used: number[]): void {
    const words = this.#words;
    const stamps = this.#stamps;
    const blob = this.#blob;
    const use = (name: number): void => {
      if (stamps[name] === blob) return;
      stamps[name] = blob;
      used.push(name);
    };
    for (const shard of shards) {
      const record = this.#stage.geometry.shardsAt + shard * SHARD_WORDS;
      if (words[record + SHARD_UNUSED_NAMES] === 0) {
        for (let chunk = words[record + SHARD_NAMES]; chunk !== 0; chunk = words[chunk + NAMES_NEXT]) {
          for (let index = 0; index < words[chunk + NAMES_COUNT]; index++) use(words[chunk + NAMES_IDS + index]);
        }
        continue;
      }
      for (let at = words[record + SHARD_FIRST]; at !== 0; at = words[at + FRAGMENT_NEXT]) {
        if (words[at + FRAGMENT_NODE] === 0) continue;
        const end = at + FRAGMENT_DATA + words[at + FRAGMENT_USED];
        for (let property = at + FRAGMENT_DATA; property < end; property += propertyWords(words, property)) {
          use(words[property + PROPERTY_NAME]);
        }
      }
    }
  }

  /** Gives every used name its place in the strings block, sorted, and returns the block. */
  #assignOffsets(ids: readonly number[], frameNames: ReadonlySet<string>): Uint8Array {
    const idOf = new Map(ids.map((id): [string, number] => [this.#names[id] ?? '', id]));
    const used = [...new Set([...idOf.keys(), ...frameNames])].sort((a, b) => (a < b ? -1 : 1));
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
    const before = this.#properties;
    let to = start;
    out[to++] = FDT_BEGIN_NODE_WIRE;
    to = putText(frame.name, target, out, to);
    for (const [name, value] of frame.properties) to = this.#putProperty(name, value, target, out, to);
    for (const child of frame.children.values()) to = this.#renderFrameNode(child, target, out, to);
    const collected = this.#collected.get(frame);
    if (collected !== undefined && frame.insert === undefined) to = this.#renderSiblings(collected.top, out, to);
    else if (collected !== undefined) to = this.#renderInserted(collected.top, frame.insert, target, out, to);
    out[to++] = FDT_END_NODE_WIRE;
    if (collected !== undefined) {
      const [nodes, properties] = [collected.nodes + 1, this.#properties - before];
      this.#parts.set(frame.name, { size: (to - start) * 4, nodes, properties });
    }
    return to;
  }

  /** Top nodes with a property of the frame's: as {@link #renderSiblings} otherwise. */
  #renderInserted(
    top: NodeRef,
    insert: InsertedProperty | undefined,
    target: Uint8Array,
    out: Int32Array,
    start: number,
  ): number {
    let to = start;
    for (let ref = top; ref !== 0; ref = this.#sibling[this.#words[ref + NODE_ID]]) {
      const value = insert?.values.get(this.#stage.nodeName(ref));
      to = this.#beginNode(ref, out, to);
      if (insert !== undefined && value !== undefined) to = this.#putProperty(insert.name, value, target, out, to);
      to = this.#finishNode(ref, out, to);
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

  /** Second pass: writes a node, what is below it, and its later siblings at word `start` of `out`; returns where they end. */
  #renderSiblings(first: NodeRef, out: Int32Array, start: number): number {
    let to = start;
    for (let ref = first; ref !== 0; ref = this.#sibling[this.#words[ref + NODE_ID]]) {
      to = this.#finishNode(ref, out, this.#beginNode(ref, out, to));
    }
    return to;
  }

  #beginNode(ref: NodeRef, out: Int32Array, start: number): number {
    const words = this.#words;
    let to = start;
    out[to++] = FDT_BEGIN_NODE_WIRE;
    const nameWords = (words[ref + NODE_LENGTH] >>> 2) + 1;
    for (let word = 0; word < nameWords; word++) out[to++] = words[ref + NODE_TEXT + word];
    return to;
  }

  /** All of a node behind its name. */
  #finishNode(ref: NodeRef, out: Int32Array, start: number): number {
    const words = this.#words;
    const id = words[ref + NODE_ID];
    let to = start;
    for (let fragment = this.#first[id]; fragment !== 0; fragment = words[fragment + FRAGMENT_SAME]) {
      to = this.#renderFragment(fragment, out, to);
    }
    const child = this.#child[id];
    if (child !== 0) to = this.#renderSiblings(child, out, to);
    out[to++] = FDT_END_NODE_WIRE;
    return to;
  }

  #renderFragment(fragment: number, out: Int32Array, start: number): number {
    const words = this.#words;
    const offsets = this.#offsets;
    let from = fragment + FRAGMENT_DATA;
    const end = from + words[fragment + FRAGMENT_USED];
    let to = start;
    let properties = 0;
    while (from < end) {
      const length = words[from + PROPERTY_LENGTH];
      out[to + PROPERTY_TAG] = FDT_PROP_WIRE;
      out[to + PROPERTY_LENGTH] = length;
      out[to + PROPERTY_NAME] = offsets[words[from + PROPERTY_NAME]];
      properties++;
      if (length === LENGTH_8_WIRE) {
        out[to + PROPERTY_VALUE] = words[from + PROPERTY_VALUE];
        out[to + PROPERTY_VALUE + 1] = words[from + PROPERTY_VALUE + 1];
        from += PROPERTY_VALUE + 2;
        to += PROPERTY_VALUE + 2;
        continue;
      }
      const next = from + propertyWords(words, from);
      from += PROPERTY_VALUE;
      to += PROPERTY_VALUE;
      if (next - from > LARGE_VALUE) {
        out.set(words.subarray(from, next), to);
        to += next - from;
        from = next;
      } else while (from < next) out[to++] = words[from++];
    }
    this.#properties += properties;
    return to;
  }
}

/** Words of a node without anything in it: BEGIN, the name with its NUL, END. */
function nodeWords(nameLength: number): number {
  return 2 + (nameLength >>> 2) + 1;
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
