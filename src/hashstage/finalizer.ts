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

const COMPATIBLE = 'compatible';
const LENGTH_8_WIRE = swap32(8);
/** From this many words on, one call copies a value faster than a loop. */
const LARGE_VALUE = 32;
const AT_SIGN = '@'.charCodeAt(0);

/** What a finished FDT came to. */
export interface RenderedBlob {
  readonly size: number;
  readonly nodes: number;
  readonly properties: number;
}

/** What the first pass over a driver's shards found. */
interface Collected {
  /** The first child of the driver's root, 0 for none; the others follow by their links. */
  readonly top: NodeRef;
  /** Words of all nodes below the root, in wire form. */
  readonly words: number;
  readonly nodes: number;
}

/**
 * Turns the stage into the FDTs of drivers: mode `hash`'s way. Single-threaded, after all writers are done.
 *
 * Two passes for each driver: the first takes one step a fragment, links fragments to nodes and nodes to parents in the
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
  readonly #compatibleId: number;
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

  constructor(stage: Stage) {
    this.#stage = stage;
    this.#words = stage.words;
    this.#compatibleId = stage.nameId(COMPATIBLE);
    this.#names = stage.names();
    this.#offsets = new Int32Array(this.#names.length);
    this.#stamps = new Int32Array(this.#names.length);
    const byNode = (): Int32Array => new Int32Array(stage.nodeCount);
    [this.#blobs, this.#first, this.#last, this.#shards] = [byNode(), byNode(), byNode(), byNode()];
    [this.#child, this.#lastChild, this.#sibling] = [byNode(), byNode(), byNode()];
  }

  /**
   * Writes the FDT of a driver with these shards, in their order, into `target` (4-byte aligned).
   *
   * KHO_EEXIST for a property that two shards gave one node; KHO_EINVAL for siblings that libfdt could not tell apart;
   * KHO_ENOSPC if `target` is too small.
   */
  render(shards: readonly number[], compatible: string, target: Uint8Array): RenderedBlob {
    const collected = this.#collect(shards);
    const compatibleWords = align4(compatible.length + 1) / 4;
    // BEGIN, "" and compatible of the root; its END, and the tag that ends the block.
    const structWords = collected.words + 2 + PROPERTY_VALUE + compatibleWords + 2;
    const strings = this.#assignOffsets(this.#usedNames(shards));
    const structAt = FDT_HEADER_SIZE + FDT_RESERVATION_SIZE;
    const stringsAt = structAt + structWords * 4;
    const size = stringsAt + strings.length;
    if (size > target.length) {
      throw new KhoError('KHO_ENOSPC', `the FDT has ${size} bytes, but only ${target.length} were reserved`, { size });
    }
    const out = new Int32Array(target.buffer, target.byteOffset, Math.floor(target.length / 4));
    writeHeader(out, size, structAt, stringsAt, strings.length);
    let at = structAt / 4;
    out[at++] = FDT_BEGIN_NODE_WIRE;
    out[at++] = 0;
    out[at++] = FDT_PROP_WIRE;
    out[at++] = swap32(compatible.length + 1);
    out[at++] = this.#offsets[this.#compatibleId];
    out[at + compatibleWords - 1] = 0;
    for (let index = 0; index < compatible.length; index++) target[at * 4 + index] = compatible.charCodeAt(index);
    target[at * 4 + compatible.length] = 0;
    at += compatibleWords;
    this.#properties = 1;
    at = this.#renderSiblings(collected.top, out, at);
    out[at++] = FDT_END_NODE_WIRE;
    out[at] = FDT_END_WIRE;
    target.set(strings, stringsAt);
    return { size, nodes: collected.nodes + 1, properties: this.#properties };
  }

  /** First pass: one step for each fragment. */
  #collect(shards: readonly number[]): Collected {
    const words = this.#words;
    const blob = ++this.#blob;
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
        size += 2 + (length >>> 2) + 1;
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

  /** The ids of the names that properties of these shards have: from the shards' lists, or from the properties themselves. */
  #usedNames(shards: readonly number[]): number[] {
    const words = this.#words;
    const stamps = this.#stamps;
    const blob = this.#blob;
    const used = [this.#compatibleId];
    stamps[this.#compatibleId] = blob;
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
    return used;
  }

  /** Gives every used name its place in the strings block, sorted, and returns the block. */
  #assignOffsets(ids: readonly number[]): Uint8Array {
    const used = ids.map((id): [string, number] => [this.#names[id] ?? '', id]);
    used.sort(([a], [b]) => (a < b ? -1 : 1));
    const block = new Uint8Array(used.reduce((sum, [name]) => sum + name.length + 1, 0));
    let at = 0;
    for (const [name, id] of used) {
      this.#offsets[id] = swap32(at);
      for (let index = 0; index < name.length; index++) block[at++] = name.charCodeAt(index);
      at++;
    }
    return block;
  }

  /** Second pass: writes a node, what is below it, and its later siblings at word `start` of `out`; returns where they end. */
  #renderSiblings(first: NodeRef, out: Int32Array, start: number): number {
    const words = this.#words;
    let to = start;
    for (let ref = first; ref !== 0; ) {
      const id = words[ref + NODE_ID];
      out[to++] = FDT_BEGIN_NODE_WIRE;
      const nameWords = (words[ref + NODE_LENGTH] >>> 2) + 1;
      for (let word = 0; word < nameWords; word++) out[to++] = words[ref + NODE_TEXT + word];
      for (let fragment = this.#first[id]; fragment !== 0; fragment = words[fragment + FRAGMENT_SAME]) {
        to = this.#renderFragment(fragment, out, to);
      }
      const child = this.#child[id];
      if (child !== 0) to = this.#renderSiblings(child, out, to);
      out[to++] = FDT_END_NODE_WIRE;
      ref = this.#sibling[id];
    }
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
