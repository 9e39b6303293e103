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
  FRAGMENT_USED,
  NODE_LENGTH,
  NODE_PARENT,
  NODE_TEXT,
  type NodeRef,
  PROPERTY_LENGTH,
  PROPERTY_NAME,
  PROPERTY_TAG,
  PROPERTY_VALUE,
  propertyWords,
  SHARD_FIRST,
  SHARD_WORDS,
  type Stage,
} from '../hashstage/index.js';
import type { RenderedBlob } from '../workers/index.js';

/** A node of one driver while its FDT is made: its fragments and children in the order in which they will stand. */
interface CollectedNode {
  readonly ref: NodeRef;
  readonly fragments: number[];
  readonly children: CollectedNode[];
}

const COMPATIBLE = 'compatible';

/**
 * Turns the stage into the FDTs of drivers: mode `hash`'s way. Single-threaded, after all writers are done.
 *
 * Two passes for each driver: the first links fragments to nodes and nodes to parents in the order of the shards, checks
 * what only shows when all shards are seen together, and adds up the size; the second writes every byte once.
 * Property names get their string offsets in sorted order, so the blob does not depend on who interned a name first.
 */
export class Finalizer {
  readonly #stage: Stage;
  readonly #words: Int32Array;
  readonly #names: (string | undefined)[];
  readonly #compatibleId: number;
  /** By name id: the string offset in the blob being made, or -1. */
  readonly #offsets: Int32Array;
  /** By name id: the number of the node that last had it; shows a property that two shards wrote. */
  readonly #stamps: Int32Array;
  #stamp = 0;

  constructor(stage: Stage) {
    this.#stage = stage;
    this.#words = stage.words;
    this.#compatibleId = stage.nameId(COMPATIBLE);
    this.#names = stage.names();
    this.#offsets = new Int32Array(this.#names.length);
    this.#stamps = new Int32Array(this.#names.length);
  }

  /**
   * Writes the FDT of a driver, whose shards are `firstShard` … `endShard - 1`, into `target` (4-byte aligned).
   *
   * KHO_EEXIST for a property that two shards gave one node; KHO_EINVAL for siblings that libfdt could not tell apart;
   * KHO_ENOSPC if `target` is too small.
   */
  render(shards: readonly number[], compatible: string, target: Uint8Array): RenderedBlob {
    this.#offsets.fill(-1);
    const collected = this.#collect(shards);
    const compatibleWords = align4(compatible.length + 1) / 4;
    // BEGIN, "" and compatible of the root; its END, and the tag that ends the block.
    const structWords = collected.words + 2 + PROPERTY_VALUE + compatibleWords + 2;
    this.#offsets[this.#compatibleId] = 0;
    const strings = this.#assignOffsets();
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
    out[at++] = swap32(this.#offsets[this.#compatibleId] as number);
    out[at + compatibleWords - 1] = 0;
    for (let index = 0; index < compatible.length; index++) target[at * 4 + index] = compatible.charCodeAt(index);
    target[at * 4 + compatible.length] = 0;
    at += compatibleWords;
    for (const node of collected.top) at = this.#renderNode(node, out, at);
    out[at++] = FDT_END_NODE_WIRE;
    out[at] = FDT_END_WIRE;
    target.set(strings, stringsAt);
    return { size, nodes: collected.nodes + 1, properties: collected.properties + 1 };
  }

  /** First pass. `words` are those of all nodes below the root. */
  #collect(shards: readonly number[]) {
    const words = this.#words;
    const nodes = new Map<NodeRef, CollectedNode>();
    const top: CollectedNode[] = [];
    let size = 0;
    for (const shard of shards) {
      let fragment = words[this.#stage.geometry.shardsAt + shard * SHARD_WORDS + SHARD_FIRST] as number;
      for (; fragment !== 0; fragment = words[fragment + FRAGMENT_NEXT] as number) {
        const ref = words[fragment + FRAGMENT_NODE] as number;
        let node = nodes.get(ref);
        if (node === undefined) {
          node = { ref, fragments: [], children: [] };
          nodes.set(ref, node);
          // The parent was opened before, by the same shard. A driver's root is no node of the stage.
          const siblings = nodes.get(words[ref + NODE_PARENT] as number)?.children ?? top;
          siblings.push(node);
          size += 2 + ((words[ref + NODE_LENGTH] as number) >>> 2) + 1;
        }
        node.fragments.push(fragment);
        size += words[fragment + FRAGMENT_USED] as number;
      }
    }
    let properties = 0;
    for (const node of nodes.values()) {
      properties += this.#checkProperties(node);
      this.#checkChildren(node.children);
    }
    this.#checkChildren(top);
    return { top, words: size, nodes: nodes.size, properties };
  }

  /** Notes the names that are used, and finds a property that two shards gave the node. */
  #checkProperties(node: CollectedNode): number {
    const words = this.#words;
    const stamp = ++this.#stamp;
    let count = 0;
    for (const fragment of node.fragments) {
      const end = fragment + FRAGMENT_DATA + (words[fragment + FRAGMENT_USED] as number);
      for (let at = fragment + FRAGMENT_DATA; at < end; at += propertyWords(words, at)) {
        const name = words[at + PROPERTY_NAME] as number;
        if (this.#stamps[name] === stamp) {
          const path = this.#stage.nodePath(node.ref);
          const property = this.#names[name] ?? '';
          throw new KhoError('KHO_EEXIST', `two shards gave the node ${path} a property '${property}'`, {
            path,
            property,
          });
        }
        this.#stamps[name] = stamp;
        this.#offsets[name] = 0;
        count++;
      }
    }
    return count;
  }

  /** Names with a unit address are rare, so only they pay for a comparison. */
  #checkChildren(children: readonly CollectedNode[]): void {
    const names = children.map((child) => this.#stage.nodeName(child.ref));
    if (!names.some((name) => name.includes('@'))) return;
    const plain = new Set(names.filter((name) => !name.includes('@')));
    for (const [index, name] of names.entries()) {
      const sibling = name.split('@', 1)[0] ?? '';
      const child = children[index];
      if (child === undefined || !plain.has(sibling) || !siblingsConflict(name, sibling)) continue;
      const path = this.#stage.nodePath(child.ref);
      throw new KhoError(
        'KHO_EINVAL',
        `the node ${path} cannot stand beside '${sibling}': libfdt takes one for the other`,
        { path },
      );
    }
  }

  /** Gives every used name its place in the strings block, sorted, and returns the block. */
  #assignOffsets(): Uint8Array {
    const used: [string, number][] = [];
    let size = 0;
    for (let id = 0; id < this.#offsets.length; id++) {
      if (this.#offsets[id] === -1) continue;
      const name = this.#names[id] ?? '';
      used.push([name, id]);
      size += name.length + 1;
    }
    used.sort(([a], [b]) => (a < b ? -1 : 1));
    const block = new Uint8Array(size);
    let at = 0;
    for (const [name, id] of used) {
      this.#offsets[id] = at;
      for (let index = 0; index < name.length; index++) block[at++] = name.charCodeAt(index);
      at++;
    }
    return block;
  }

  /** Second pass: writes a node and what is below it at word `at` of `out`; returns where it ends. */
  #renderNode(node: CollectedNode, out: Int32Array, start: number): number {
    const words = this.#words;
    const offsets = this.#offsets;
    let to = start;
    out[to++] = FDT_BEGIN_NODE_WIRE;
    const nameWords = ((words[node.ref + NODE_LENGTH] as number) >>> 2) + 1;
    for (let word = 0; word < nameWords; word++) out[to++] = words[node.ref + NODE_TEXT + word] as number;
    for (const fragment of node.fragments) {
      let from = fragment + FRAGMENT_DATA;
      const end = from + (words[fragment + FRAGMENT_USED] as number);
      while (from < end) {
        const next = from + propertyWords(words, from);
        out[to + PROPERTY_TAG] = words[from + PROPERTY_TAG] as number;
        out[to + PROPERTY_LENGTH] = words[from + PROPERTY_LENGTH] as number;
        out[to + PROPERTY_NAME] = swap32(offsets[words[from + PROPERTY_NAME] as number] as number);
        to += PROPERTY_VALUE;
        for (from += PROPERTY_VALUE; from < next; from++) out[to++] = words[from] as number;
      }
    }
    for (const child of node.children) to = this.#renderNode(child, out, to);
    out[to++] = FDT_END_NODE_WIRE;
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
