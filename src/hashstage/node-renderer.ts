import { FDT_BEGIN_NODE_WIRE, FDT_END_NODE_WIRE, FDT_PROP_WIRE, swap32 } from '../fdt/index.js';
import {
  FRAGMENT_DATA,
  FRAGMENT_NEXT,
  FRAGMENT_NODE,
  FRAGMENT_SAME,
  FRAGMENT_USED,
  NODE_LENGTH,
  NODE_PARENT,
  NODE_TEXT,
  type NodeRef,
  PROPERTY_LENGTH,
  PROPERTY_NAME,
  PROPERTY_VALUE,
} from './layout.js';
import { LINK_CHILD, LINK_FIRST, LINK_REF, LINK_SIBLING, type NodeLinks } from './node-links.js';
import type { Collected } from './shard-collector.js';
import { propertyWords } from './writer.js';

// Constants of its own module are part of the code that V8 makes; those of others are loaded each time.
const PROP = FDT_PROP_WIRE;
const BEGIN_NODE = FDT_BEGIN_NODE_WIRE;
const END_NODE = FDT_END_NODE_WIRE;
const DATA = FRAGMENT_DATA;
const LENGTH = PROPERTY_LENGTH;
const NAME = PROPERTY_NAME;
const VALUE = PROPERTY_VALUE;
/** Words of a property of 8 bytes. */
const WORDS_8 = PROPERTY_VALUE + 2;
const LENGTH_8_WIRE = swap32(8);
/** From this many words on, one call copies a value faster than a loop. */
const LARGE_VALUE = 32;

/** Writes properties into a top node, at word `at`, before its own; returns where they end. */
export type InsertProperties = (ref: NodeRef, at: number) => number;

/**
 * The finalizer's second pass: writes what shards wrote into the structure block, every byte once. Nothing is allocated for
 * a node.
 */
export class NodeRenderer {
  /** How many properties of the stage were written. */
  properties = 0;
  readonly #words: Int32Array;
  readonly #links: NodeLinks;
  readonly #offsets: Int32Array;

  /** `offsets` has by name id the string offset in wire order. */
  constructor(words: Int32Array, links: NodeLinks, offsets: Int32Array) {
    this.#words = words;
    this.#links = links;
    this.#offsets = offsets;
  }

  /** Writes all that was collected at word `start` of `out`; returns where it ends. */
  render(collected: Collected, out: Int32Array, start: number, insert: InsertProperties | undefined): number {
    if (collected.chains === undefined) return this.#renderSiblings(collected.top, out, start, insert);
    let to = start;
    for (const first of collected.chains) to = this.#renderChain(first, out, to, insert);
    return to;
  }

  /** A shard in wire order: its fragments as they follow one another. A node ends where one comes that is not below it. */
  #renderChain(first: number, out: Int32Array, start: number, insert: InsertProperties | undefined): number {
    const words = this.#words;
    let open = words[first + FRAGMENT_NODE];
    let to = this.#beginNode(open, out, start);
    if (insert !== undefined) to = insert(open, to);
    to = this.#renderFragment(first, out, to);
    for (let at = words[first + FRAGMENT_NEXT]; at !== 0; at = words[at + FRAGMENT_NEXT]) {
      const ref = words[at + FRAGMENT_NODE];
      if (ref !== open) {
        for (const parent = words[ref + NODE_PARENT]; open !== parent; open = words[open + NODE_PARENT]) {
          out[to++] = END_NODE;
        }
        to = this.#beginNode(ref, out, to);
        open = ref;
      }
      to = this.#renderFragment(at, out, to);
    }
    for (; open > 0; open = words[open + NODE_PARENT]) out[to++] = END_NODE;
    return to;
  }

  /** A node that has links, what is below it, and its later siblings. */
  #renderSiblings(first: number, out: Int32Array, start: number, insert: InsertProperties | undefined): number {
    const words = this.#words;
    const links = this.#links.words;
    let to = start;
    for (let at = first; at !== 0; at = links[at + LINK_SIBLING]) {
      const ref = links[at + LINK_REF];
      to = this.#beginNode(ref, out, to);
      if (insert !== undefined) to = insert(ref, to);
      for (let fragment = links[at + LINK_FIRST]; fragment !== 0; fragment = words[fragment + FRAGMENT_SAME]) {
        to = this.#renderFragment(fragment, out, to);
      }
      const child = links[at + LINK_CHILD];
      if (child !== 0) to = this.#renderSiblings(child, out, to, undefined);
      out[to++] = END_NODE;
    }
    return to;
  }

  #beginNode(ref: NodeRef, out: Int32Array, start: number): number {
    const words = this.#words;
    let to = start;
    out[to++] = BEGIN_NODE;
    const nameWords = (words[ref + NODE_LENGTH] >>> 2) + 1;
    for (let word = 0; word < nameWords; word++) out[to++] = words[ref + NODE_TEXT + word];
    return to;
  }

  #renderFragment(fragment: number, out: Int32Array, start: number): number {
    const words = this.#words;
    const offsets = this.#offsets;
    let from = fragment + DATA;
    const end = from + words[fragment + FRAGMENT_USED];
    let to = start;
    let properties = 0;
    while (from < end) {
      const length = words[from + LENGTH];
      out[to] = PROP;
      out[to + LENGTH] = length;
      out[to + NAME] = offsets[words[from + NAME]];
      properties++;
      if (length === LENGTH_8_WIRE) {
        out[to + VALUE] = words[from + VALUE];
        out[to + VALUE + 1] = words[from + VALUE + 1];
        from += WORDS_8;
        to += WORDS_8;
        continue;
      }
      const next = from + propertyWords(words, from);
      from += VALUE;
      to += VALUE;
      if (next - from > LARGE_VALUE) {
        out.set(words.subarray(from, next), to);
        to += next - from;
        from = next;
      } else while (from < next) out[to++] = words[from++];
    }
    this.properties += properties;
    return to;
  }
}
