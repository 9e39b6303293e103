import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { physicalAddress as at, PAGE_SIZE } from '#dist/memblock/address.js';
import { ExtentTable } from '#dist/memblock/extent.js';
import { PageAllocator } from '#dist/memblock/page-allocator.js';
import { naturalOrders } from '#dist/memblock/page-range.js';
import { SharedPhysicalMemory } from '#dist/memblock/physical-memory.js';
import { RadixTree } from '#dist/memblock/radix-tree.js';
import { walkRadixTree } from '#dist/memblock/radix-walk.js';
import type { Extent } from '#dist/memblock/shard-extents.js';
import { Random } from '#dist/workers/random.js';

const MIB = 2 ** 20;
const THREADS = 4;
const SHARDS = 8;
const OPERATIONS = 250;
const WORKER = new URL('../fixtures/allocator-worker.js', import.meta.url);

/** Two nodes with a hole between them, and pages inside that are nobody's. */
const NODES = [
  { base: at(MIB), size: 39 * MIB, nid: 0, backed: true },
  { base: at(64 * MIB), size: 24 * MIB, nid: 1, backed: true },
];
const END = 88 * MIB;

function freshAllocator(): PageAllocator {
  const pages = new PageAllocator(NODES);
  pages.addFreeRange(at(MIB), 5 * MIB + 3 * PAGE_SIZE, 0);
  pages.addFreeRange(at(8 * MIB), 32 * MIB, 0);
  pages.addFreeRange(at(64 * MIB), 24 * MIB, 1);
  return pages;
}

function shuffled<T>(items: readonly T[], below: (limit: number) => number): T[] {
  const rest = [...items];
  return items.map(() => rest.splice(below(rest.length), 1)[0]);
}

test.each([1, 2, 3, 0x5eed, 2 ** 31 - 1])(
  'four threads that allocate, free, preserve and unpreserve at the same time give no page out twice and lose none (seed %i)',
  async (seed) => {
    const random = new Random(`${seed}`);
    const below = (limit: number): number => random.below(limit);
    const memory = SharedPhysicalMemory.create(NODES);
    const pages = freshAllocator();
    const start = { statistics: pages.statistics(), buddyinfo: pages.buddyinfo() };
    const taken: Extent[] = [];
    const take = (count: number, nid: number): Extent => {
      const extent = { base: pages.allocExact(count, nid), pages: count };
      taken.push(extent);
      return extent;
    };
    // Shards of different threads are neighbours: their marks lie in the same words of the tracker.
    const grants = Array.from({ length: SHARDS }, (_, shard) => {
      const ranges = Array.from({ length: 1 + below(3) }, () => take(1 + below(300), shard % 2));
      return { pages: ranges.reduce((sum, range) => sum + range.pages, 0), ranges };
    });
    const extents = ExtentTable.create(grants);
    const tracker = RadixTree.create(memory, () => take(1, 0).base);
    for (const { ranges } of grants) for (const range of ranges) tracker.ensureRange(range.base, range.pages, 10);

    const owners = new SharedArrayBuffer((END / PAGE_SIZE) * 4);
    const barrier = new SharedArrayBuffer(8);
    const workers = Array.from({ length: THREADS }, (_, thread) => {
      const shards = Array.from({ length: SHARDS / THREADS }, (_, index) => thread + index * THREADS);
      const shared = { memory: memory.handle, extents: extents.handle, tracker: tracker.root, owners, barrier };
      const workerData = { ...shared, shards, threads: THREADS, seed: seed + thread, operations: OPERATIONS };
      return new Worker(WORKER, { workerData });
    });
    const all = async (what: 'run' | 'give back') => {
      const answers = Promise.all(workers.map((worker) => once(worker, 'message')));
      for (const worker of workers) worker.postMessage(what);
      return (await answers).flatMap(([objects]) => objects);
    };
    const preservedNow = () => {
      const objects: string[] = [];
      walkRadixTree(memory, tracker.root, (address, order) => objects.push(`${address}/${order}`));
      return objects.sort();
    };
    try {
      const marked = (await all('run')).flatMap((object) =>
        'order' in object ? [object] : [...naturalOrders(object.address, object.pages)],
      );
      expect(marked.length).toBeGreaterThan(50);
      expect(preservedNow()).toEqual(marked.map(({ address, order }) => `${address}/${order}`).sort());
      const held = new Int32Array(owners).reduce((sum, owner) => sum + Number(owner !== 0), 0);
      const used = grants.map((_, shard) => extents.extent(shard)).map((one) => one.declaredPages - one.freePages);
      expect(used.reduce((sum, count) => sum + count)).toBe(held);
      const exits = workers.map((worker) => once(worker, 'exit'));
      await all('give back');
      await Promise.all(exits);
    } finally {
      await Promise.all(workers.map((worker) => worker.terminate()));
    }
    expect(preservedNow()).toEqual([]);
    expect(new Int32Array(owners).every((owner) => owner === 0)).toBe(true);
    for (let shard = 0; shard < SHARDS; shard++) {
      expect(extents.extent(shard).freePages).toBe(grants[shard].pages);
      expect([...extents.extent(shard).allocated()]).toEqual([]);
    }
    // The extents go back in any order, and all merges.
    for (const { base, pages: count } of shuffled(taken, below)) pages.free(base, count);
    expect({ statistics: pages.statistics(), buddyinfo: pages.buddyinfo() }).toEqual(start);
  },
  120_000,
);
