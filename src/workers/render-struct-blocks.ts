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
import { collectInstances, type InstanceBlocks, propertiesAt } from './instance-blocks.js';
import { endsName, packedWords, packName } from './packed-name.js';
import { PROPERTY_LENGTH, PROPERTY_NAME, PROPERTY_VALUE, propertyWords } from './struct-block.js';
import type { StructBlockSink } from './struct-block-sink.js';
import type { StructBlocks } from './struct-blocks.js';
import type { RenderedBlob } from './task.js';

/** A node of an FDT with the instances below it. */
export interface StructSection {
  /** The node's name below the root; '' for the root itself, which only the first section can be. */
  readonly name: string;
  readonly compatible: string;
  /** Those of one instance stand together. An instance may be left out, not one of its shards. */
  readonly shards: readonly StructBlockSink[];
}

const STRUCT_AT = FDT_HEADER_SIZE + FDT_RESERVATION_SIZE;
const COMPATIBLE = 'compatible';
const LENGTH_8_WIRE = wire32(8);
/** From this many words on, one call copies a value faster than a loop. */
const LARGE_VALUE = 32;
const encoder = new TextEncoder();

/**
 * Writes an FDT of these sections, in their order, into `target` (4-byte aligned), from what the shards wrote to `blocks`:
 * the counterpart of the finalizer in modes without a stage. A shard can go on afterwards.
 *
 * KHO_EEXIST for a property that two shards gave one node; KHO_EINVAL for siblings that libfdt could not tell apart;
 * KHO_ENOSPC if `target` is too small.
 */
export function renderStructBlocks(
  blocks: StructBlocks,
  sections: readonly StructSection[],
  target: Uint8Array,
): RenderedBlob {
  const end = blocks.handTo(undefined);
  try {
    return new Rendering(blocks, sections).write(target);
  } finally {
    blocks.cutAt(end); // merged trees were appended
  }
}

interface Part {
  readonly name: string;
  readonly compatible: Uint8Array;
  readonly instances: readonly InstanceBlocks[];
}

class Rendering {
  readonly #words: Int32Array;
  readonly #parts: readonly Part[];
  readonly #structSize: number;
  readonly #strings: Uint8Array;
  readonly #compatibleId: number;
  /** By name id: the offset in the strings block as it stands in the FDT. Only those of names in use have a meaning. */
  readonly #offsets: Int32Array;
  #out: Int32Array = new Int32Array(0);
  #to = 0;
  #nodes = 0;
  #properties = 0;

  constructor(blocks: StructBlocks, sections: readonly StructSection[]) {
    this.#parts = sections.map(({ name, compatible, shards }) => ({
      name,
      compatible: encoder.encode(`${compatible}\0`),
      instances: collectInstances(blocks, shards, name === '' ? '' : `/${name}`),
    }));
    this.#words = blocks.words;
    this.#structSize = this.#measure();
    this.#compatibleId = blocks.names.id(COMPATIBLE);
    this.#offsets = new Int32Array(blocks.names.count);
    this.#strings = this.#makeStrings(this.#usedNames(blocks), blocks);
  }

  write(target: Uint8Array): RenderedBlob {
    const stringsAt = STRUCT_AT + this.#structSize;
    const size = stringsAt + this.#strings.length;
    if (size > target.length) {
      throw new KhoError('KHO_ENOSPC', `the FDT has ${size} bytes, but only ${target.length} were reserved`, { size });
    }
    const out = new Int32Array(target.buffer, target.byteOffset, Math.floor(target.length / FDT_TOKEN_SIZE));
    writeHeader(out, {
      totalSize: size,
      reservationsAt: FDT_HEADER_SIZE,
      structureAt: STRUCT_AT,
      structureSize: this.#structSize,
      stringsAt,
      stringsSize: this.#strings.length,
    });
    out.fill(0, FDT_HEADER_SIZE / FDT_TOKEN_SIZE, STRUCT_AT / FDT_TOKEN_SIZE); // no reservations
    this.#out = out;
    this.#to = STRUCT_AT / FDT_TOKEN_SIZE;
    this.#beginNode('');
    for (const { name, compatible, instances } of this.#parts) {
      if (name !== '') this.#beginNode(name);
      this.#putCompatible(compatible, target);
      for (const instance of instances) this.#copyInstance(instance);
      if (name !== '') this.#endNodes(1);
    }
    this.#endNodes(1);
    out[this.#to] = FDT_END_WIRE;
    target.set(this.#strings, stringsAt);
    return { size, nodes: this.#nodes, properties: this.#properties };
  }

  /** Bytes of the structure block. */
  #measure(): number {
    const rootSize = nodeSize(0) + FDT_TOKEN_SIZE;
    return this.#parts.reduce((sum, { name, compatible, instances }) => {
      const own = (name === '' ? 0 : nodeSize(name.length)) + propertySize(compatible.length);
      return instances.reduce((size, blocks) => size + this.#sizeOf(blocks), sum + own);
    }, rootSize);
  }

  #sizeOf(blocks: InstanceBlocks): number {
    let words = propertiesAt(this.#words, blocks[0]) - blocks[0].start + 1;
    for (const block of blocks) words += block.end - propertiesAt(this.#words, block) + block.depth;
    return words * FDT_TOKEN_SIZE;
  }

  /** The ids of all names in the FDT, each once. */
  #usedNames(blocks: StructBlocks): number[] {
    blocks.growMarks();
    const { marks, links } = blocks;
    const mark = blocks.nextMark();
    const used = [this.#compatibleId];
    marks[this.#compatibleId] = mark;
    for (const { instances } of this.#parts) {
      for (const instance of instances) {
        for (const { names } of instance) {
          for (let link = names; link !== 0; link = links[link + 1]) {
            const name = links[link];
            if (marks[name] !== mark) used.push(name);
            marks[name] = mark;
          }
        }
      }
    }
    return used;
  }

  /** Gives every used name its place in the strings block, in sorted order, and returns the block. */
  #makeStrings(ids: readonly number[], { names }: StructBlocks): Uint8Array {
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

  #beginNode(name: string): void {
    this.#out[this.#to++] = FDT_BEGIN_NODE_WIRE;
    packName(this.#out, this.#to, name);
    this.#to += packedWords(name.length);
    this.#nodes++;
  }

  #endNodes(count: number): void {
    for (let left = count; left > 0; left--) this.#out[this.#to++] = FDT_END_NODE_WIRE;
  }

  #putCompatible(value: Uint8Array, target: Uint8Array): void {
    const out = this.#out;
    const at = this.#to;
    out[at] = FDT_PROP_WIRE;
    out[at + PROPERTY_LENGTH] = wire32(value.length);
    out[at + PROPERTY_NAME] = this.#offsets[this.#compatibleId];
    this.#to = at + propertySize(value.length) / FDT_TOKEN_SIZE;
    out[this.#to - 1] = 0; // the padding
    target.set(value, (at + PROPERTY_VALUE) * FDT_TOKEN_SIZE);
    this.#properties++;
  }

  #copyInstance(blocks: InstanceBlocks): void {
    const [first] = blocks;
    this.#copy(first.start, first.childrenAt);
    for (const block of blocks) {
      if (block !== first) this.#copy(propertiesAt(this.#words, block), block.childrenAt);
    }
    for (const block of blocks) {
      this.#copy(block.childrenAt, block.end);
      this.#endNodes(block.depth);
    }
    this.#endNodes(1);
  }

  /** Copies these words, with offsets in place of name ids. */
  #copy(start: number, end: number): void {
    const words = this.#words;
    const out = this.#out;
    const offsets = this.#offsets;
    let from = start;
    let to = this.#to;
    let properties = 0;
    let nodes = 0;
    while (from < end) {
      const tag = words[from];
      if (tag === FDT_PROP_WIRE) {
        const length = words[from + PROPERTY_LENGTH];
        out[to] = FDT_PROP_WIRE;
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
        continue;
      }
      out[to++] = tag;
      from++;
      if (tag !== FDT_BEGIN_NODE_WIRE) continue;
      nodes++;
      let word: number;
      do {
        word = words[from++];
        out[to++] = word;
      } while (!endsName(word));
    }
    this.#to = to;
    this.#properties += properties;
    this.#nodes += nodes;
  }
}
