import { FdtTree, type TreeNode } from '#dist/fdt/index.js';

/**
 * The order in which the patch series v5 writes its state tree: properties and children are in hash tables of 8 buckets,
 * the newest first in each, and the flattening pushes children on a list, which turns their order round.
 */
export function inBucketOrder(tree: FdtTree): FdtTree {
  const ordered = new FdtTree();
  copy(tree.root, ordered.root);
  return ordered;
}

function copy(from: TreeNode, to: TreeNode): void {
  for (const name of hashIteration(from.properties.keys())) to.addProperty(name, from.getProperty(name));
  for (const name of hashIteration(from.children.keys()).reverse()) copy(from.getChild(name), to.addChild(name));
}

/** Keys as hash_for_each() meets them, from the order in which they were added. */
function hashIteration(keys: Iterable<string>): string[] {
  const buckets: string[][] = Array.from({ length: 8 }, () => []);
  for (const key of keys) buckets[bucketOf(key)]?.unshift(key);
  return buckets.flat();
}

const MASK = 2n ** 64n - 1n;
const GOLDEN_RATIO_64 = 0x61c8864680b583ebn;

/** hash_64(xxh64(key, seed 1120), 3 bits). */
export function bucketOf(key: string): number {
  return Number(((xxh64(new TextEncoder().encode(key), 1120n) * GOLDEN_RATIO_64) & MASK) >> 61n);
}

const [P1, P2, P3, P4, P5] = [
  0x9e3779b185ebca87n,
  0xc2b2ae3d27d4eb4fn,
  0x165667b19e3779f9n,
  0x85ebca77c2b2ae63n,
  0x27d4eb2f165667c5n,
] as const;

const rotate = (value: bigint, by: bigint): bigint => ((value << by) | (value >> (64n - by))) & MASK;
const round = (lane: bigint, input: bigint): bigint => (rotate((lane + input * P2) & MASK, 31n) * P1) & MASK;

/** xxHash, 64 bits, from its specification. */
export function xxh64(bytes: Uint8Array, seed: bigint): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  let hash = (seed + P5) & MASK;
  if (bytes.length >= 32) {
    const lanes = [seed + P1 + P2, seed + P2, seed, seed - P1].map((lane) => lane & MASK) as [
      bigint,
      bigint,
      bigint,
      bigint,
    ];
    for (; at + 32 <= bytes.length; at += 32) {
      for (let lane = 0; lane < 4; lane++)
        lanes[lane] = round(lanes[lane] as bigint, view.getBigUint64(at + lane * 8, true));
    }
    const [a, b, c, d] = lanes;
    hash = (rotate(a, 1n) + rotate(b, 7n) + rotate(c, 12n) + rotate(d, 18n)) & MASK;
    for (const lane of lanes) hash = ((hash ^ round(0n, lane)) * P1 + P4) & MASK;
  }
  hash = (hash + BigInt(bytes.length)) & MASK;
  for (; at + 8 <= bytes.length; at += 8) {
    hash = (rotate(hash ^ round(0n, view.getBigUint64(at, true)), 27n) * P1 + P4) & MASK;
  }
  for (; at + 4 <= bytes.length; at += 4) {
    hash = (rotate(hash ^ ((BigInt(view.getUint32(at, true)) * P1) & MASK), 23n) * P2 + P3) & MASK;
  }
  for (; at < bytes.length; at++) hash = (rotate(hash ^ ((BigInt(bytes[at] ?? 0) * P5) & MASK), 11n) * P1) & MASK;
  hash = ((hash ^ (hash >> 33n)) * P2) & MASK;
  hash = ((hash ^ (hash >> 29n)) * P3) & MASK;
  return hash ^ (hash >> 32n);
}
