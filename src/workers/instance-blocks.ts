import { SiblingNames } from '../fdt/sibling-names.js';
import { mergeTrees } from './merge-trees.js';
import { kindOfName, MIXED_KINDS, wordsOfName } from './packed-name.js';
import { PROPERTY_NAME, propertyWords, type StructBlock } from './struct-block.js';
import { StructBlockSink } from './struct-block-sink.js';
import type { StructBlocks } from './struct-blocks.js';

/**
 * What is to be copied for an instance: the blocks of its shards, whose properties of the instance's node come first and
 * then their children. No two have a property or a child in common.
 */
export type InstanceBlocks = readonly StructBlock[];

/**
 * The instances of `shards`, of which those of one instance stand together. Shards that have become trees, or have nodes in
 * common, are merged as trees and written to `blocks` anew; the caller must be the one who appends there.
 *
 * KHO_EEXIST for a property that two shards gave one node; KHO_EINVAL for siblings that libfdt could not tell apart.
 */
export function collectInstances(blocks: StructBlocks, shards: readonly StructBlockSink[]): InstanceBlocks[] {
  const names: string[] = [];
  const instances: InstanceBlocks[] = [];
  for (let first = 0; first < shards.length; ) {
    const { instance } = shards[first];
    let end = first + 1;
    while (end < shards.length && shards[end].instance === instance) end++;
    names.push(instance);
    const { block } = shards[first];
    if (end === first + 1 && block?.hasMixedKinds === false) instances.push([block]);
    else instances.push(blocksOf(blocks, shards.slice(first, end), `/${instance}`));
    first = end;
  }
  checkSiblings(names);
  return instances;
}

function checkSiblings(names: readonly string[]): void {
  if (!names.some((name) => name.includes('@'))) return;
  const siblings = new SiblingNames();
  for (const name of names) siblings.add(name, `/${name}`);
}

function blocksOf(blocks: StructBlocks, shards: readonly StructBlockSink[], path: string): InstanceBlocks {
  const own: StructBlock[] = [];
  for (const { block } of shards) if (block?.hasMixedKinds === false) own.push(block);
  if (own.length === shards.length && areDisjoint(blocks, own)) return own;
  const merged = new StructBlockSink(blocks, shards[0].instance, Number.POSITIVE_INFINITY);
  const trees = shards.map(({ tree }) => tree);
  mergeTrees(trees, path, merged);
  return [merged.block as StructBlock]; // written front to back, so it became no tree
}

/** Whether no two blocks have a property of the instance's node, or a child, or children that libfdt could confuse. */
function areDisjoint(blocks: StructBlocks, own: InstanceBlocks): boolean {
  const { words, marks, children } = blocks;
  const mark = blocks.nextMark();
  children.clear();
  let kinds = 0;
  let ref = 0;
  for (const block of own) {
    for (let at = propertiesAt(words, block); at < block.childrenAt; at += propertyWords(words, at)) {
      if (marks[words[at + PROPERTY_NAME]] === mark) return false;
      marks[words[at + PROPERTY_NAME]] = mark;
    }
    for (const child of blocks.chain(block.children)) {
      const name = block.start + child + 1;
      if (children.find(words, 0, name) !== 0) return false;
      children.insert(++ref, name);
      kinds |= kindOfName(words, name);
    }
  }
  return kinds !== MIXED_KINDS;
}

/** Where the properties of the instance's node begin. */
export function propertiesAt(words: Int32Array, { start }: StructBlock): number {
  return start + 1 + wordsOfName(words, start + 1);
}
