import { FDT_BEGIN_NODE_WIRE, FDT_PROP_WIRE, swap32 } from '../fdt/index.js';
import { unpackName, wordsOfName } from './packed-name.js';
import { PROPERTY_LENGTH, PROPERTY_NAME, PROPERTY_VALUE, propertyWords, type StructBlock } from './struct-block.js';
import type { StructBlocks } from './struct-blocks.js';
import { TreeSink } from './tree-sink.js';

/** The plain tree of what stands in a block, with the same refs, and the same bytes charged. */
export function treeOf(block: StructBlock, blocks: StructBlocks, instance: string, maxBytes: number): TreeSink {
  const { words, bytes } = blocks;
  const tree = new TreeSink(blocks.names, instance, maxBytes);
  const path: number[] = [];
  let node = tree.root as number;
  for (let at = block.start + 1 + wordsOfName(words, block.start + 1); at < block.end; ) {
    const tag = words[at];
    if (tag === FDT_PROP_WIRE) {
      const value = (at + PROPERTY_VALUE) * 4;
      tree.bytes(node, words[at + PROPERTY_NAME], bytes.subarray(value, value + swap32(words[at + PROPERTY_LENGTH])));
      at += propertyWords(words, at);
    } else if (tag === FDT_BEGIN_NODE_WIRE) {
      path.push(node);
      node = tree.open(node, unpackName(words, at + 1));
      at += 1 + wordsOfName(words, at + 1);
    } else {
      node = path.pop() ?? tree.root;
      at++;
    }
  }
  return tree;
}
