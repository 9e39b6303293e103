import { Worker } from 'node:worker_threads';
import { afterEach, expect, test } from 'vitest';
import { physicalAddress as at, PAGE_SIZE, type PhysicalAddress } from '#dist/memblock/address.js';
import type { Folio } from '#dist/memblock/page-range.js';
import { SharedPhysicalMemory } from '#dist/memblock/physical-memory.js';
import { RadixTree } from '#dist/memblock/radix-tree.js';
import { walkRadixTree } from '#dist/memblock/radix-walk.js';

const WORKERS = 4;
const MIB = 2 ** 20;
const page = (number: number): PhysicalAddress => at(number * PAGE_SIZE);

/** Backed memory for tables, and all the rest of the address space unbacked, to track. */
function newMemory(tables: number): SharedPhysicalMemory {
  const end = 2 ** 52;
  return SharedPhysicalMemory.create([
    { base: at(0), size: tables, nid: 0, backed: true },
    { base: at(tables), size: end - tables, nid: 0, backed: false },
  ]);
}

let threads: Worker[] = [];
afterEach(async () => {
  await Promise.all(threads.map((thread) => thread.terminate())); // or those of a failed test would wait for ever
  threads = [];
});

/** Starts threads, each with a job of its own. */
function start(memory: SharedPhysicalMemory, workers: number, jobOf: (worker: number) => object): void {
  const barrier = new SharedArrayBuffer(8);
  threads = Array.from({ length: workers }, (_, worker) => {
    const workerData = { handle: memory.handle, barrier, worker, workers, job: jobOf(worker) };
    return new Worker(new URL('../fixtures/tracker-worker.js', import.meta.url), { workerData });
  });
}

/** The next message of each thread. */
function answers<Answer>(): Promise<Answer[]> {
  return Promise.all(
    threads.map(
      (thread) =>
        new Promise<Answer>((resolve, reject) => {
          const ended = (code: number) => reject(new Error(`a thread ended with ${code}`));
          const failed = (error: unknown) => reject(error);
          thread.once('error', failed).once('exit', ended);
          thread.once('message', (answer: Answer) => {
            thread.off('error', failed).off('exit', ended);
            resolve(answer);
          });
        }),
    ),
  );
}

function foliosOf(memory: SharedPhysicalMemory, root: PhysicalAddress) {
  const folios: Folio[] = [];
  const pages = walkRadixTree(memory, root, (address, order) => folios.push({ address, order }));
  return { folios, pages };
}

const ascending = (a: number, b: number) => a - b;
const inWalkOrder = (folios: Iterable<Folio>) => [...folios].sort((a, b) => b.order - a.order || a.address - b.address);

/**
 * Places in an empty tree where one entry after another is the first that is missing: the order and the number of a folio,
 * and the pages from that entry down. (Order 0 stands below entry 2 of the root, orders from 2 on below entry 0.)
 */
const MISSING = [
  [0, 0, 5],
  [0, 2 ** 36, 3],
  [0, 2 ** 30, 2],
  [0, 2 ** 20, 1],
  [2, 0, 5],
  [3, 0, 4],
] as const;

/** How far thread `worker`'s folio is from such a place: in the same leaf, below the same entry, or nowhere else. */
const RACES: readonly ((worker: number, pages: number) => number)[] = [
  (worker) => worker,
  (worker, pages) => worker * (pages === 1 ? 1 : 2 ** (15 + 9 * (Math.min(pages, 4) - 2))),
  () => 0,
];

test('four threads that link the same missing table at once lose no mark and no page, at any level', async () => {
  const rounds = 15;
  const memory = newMemory(16 * MIB);
  let next = 1;
  const take = () => page(next++);
  const roots = Array.from({ length: rounds }, () => RadixTree.create(memory, take).root);
  const folios = roots.map((_, round) =>
    MISSING.map(([order, first, pages]) =>
      Array.from({ length: WORKERS }, (_, worker): Folio => {
        const number = first + RACES[round % 3](worker, pages);
        return { address: at(number * PAGE_SIZE * 2 ** order), order };
      }),
    ),
  );
  const pools = Array.from({ length: WORKERS }, () => Array.from({ length: rounds * 40 }, take)); // one may win everywhere
  expect(next * PAGE_SIZE).toBeLessThan(16 * MIB);
  start(memory, WORKERS, (worker) => ({ kind: 'install', roots, pool: pools[worker], folios }));
  const found = await answers<{
    free: number[];
    linked: number[][];
    recycled: number[];
    codes: (string | undefined)[];
  }>();

  for (const [round, root] of roots.entries()) {
    const tree = foliosOf(memory, root); // a page that is linked twice is damage
    const wanted = new Map(folios[round].flat().map((folio) => [`${folio.address}/${folio.order}`, folio]));
    expect(tree.folios).toEqual(inWalkOrder(wanted.values()));
    const linked = found.flatMap((thread) => thread.linked[round]);
    expect([...tree.pages].sort(ascending)).toEqual([root, ...linked].sort(ascending));
    for (const [place, [, , pages]] of MISSING.entries()) {
      const turn = round * MISSING.length + place;
      // Of those who want the same folio one wins; others never fail.
      const codes = found.map((thread) => thread.codes[turn]);
      const same = round % 3 === 2;
      expect(codes.filter((code) => code === undefined)).toHaveLength(same ? 1 : WORKERS);
      expect(codes.filter((code) => code === 'KHO_EEXIST')).toHaveLength(same ? WORKERS - 1 : 0);
      // Each had made a whole branch, and in one leaf only one branch is of use.
      const recycled = found.reduce((sum, thread) => sum + thread.recycled[turn], 0);
      if (round % 3 !== 1) expect(recycled).toBe((WORKERS - 1) * pages);
      else expect(recycled).toBeGreaterThanOrEqual(WORKERS - 1); // the page of the level where all met
    }
  }
  // Every page that an allocator ever had is linked once or free.
  const all = found.flatMap(({ free, linked }) => [...free, ...linked.flat()]);
  expect(all.sort(ascending)).toEqual(pools.flat());
});

test.each([
  ['a folio', [1, 1024], true],
  ['a range of several objects', [61, 1021], false],
] as const)('of two threads that preserve %s at once exactly one wins', async (_, sizes, asFolio) => {
  const memory = newMemory(16 * MIB);
  let next = 1;
  const tree = RadixTree.create(memory, () => page(next++));
  const count = 1000;
  const targets = Array.from({ length: count }, (_, index) => [
    16 * MIB + index * 2 ** 22 + (asFolio ? 0 : PAGE_SIZE),
    sizes[index % 2],
    asFolio,
  ]);
  tree.ensureRange(at(16 * MIB), count * 1024, 10);
  start(memory, 2, () => ({ kind: 'contend', root: tree.root, targets }));
  const [first, second] = await answers<string[]>();
  const losers = new Set<string>();
  for (const [index, code] of first.entries()) {
    expect([code, second[index]].filter((one) => one === 'won')).toHaveLength(1);
    losers.add(code === 'won' ? second[index] : code);
  }
  expect([...losers]).toEqual(['KHO_EEXIST']);
  // The loser took nothing of the winner's away: what is marked covers each target once.
  const { folios } = foliosOf(memory, tree.root);
  const covered = folios.reduce((sum, { order }) => sum + 2 ** order, 0);
  expect(covered).toBe(targets.reduce((sum, [, pages]) => sum + Number(pages), 0));
});

test('four threads preserve and take back at random what each remembers, in one tree that grows', async () => {
  const memory = newMemory(16 * MIB);
  const next = new SharedArrayBuffer(4);
  const counter = new Int32Array(next);
  counter[0] = 1;
  const { root } = RadixTree.create(memory, () => page(counter[0]++));
  // Blocks over the border of two leaves of order 0, above 16 TiB.
  const blockPages = 16;
  const blocks = 4096;
  const base = 2 ** 45 + 2 ** 27 - (blocks / 2) * blockPages * PAGE_SIZE;
  const job = { kind: 'random', root, base, blocks, blockPages, steps: 6000, next };
  start(memory, WORKERS, (worker) => ({ ...job, seed: worker + 1 }));
  const results = await answers<{ marked: Folio[]; seen: Record<string, number> }>();
  for (const { seen } of results) for (const times of Object.values(seen)) expect(times).toBeGreaterThan(300);
  const before = foliosOf(memory, root);
  expect(before.folios).toEqual(inWalkOrder(results.flatMap(({ marked }) => marked)));

  const last = answers<{ linked: number[]; spares: number[] }>();
  for (const thread of threads) thread.postMessage('take back');
  const ends = await last;
  const after = foliosOf(memory, root);
  expect(after.folios).toEqual([]);
  expect(after.pages).toEqual(before.pages);
  const linked = ends.flatMap((thread) => thread.linked);
  expect([root, ...linked].sort(ascending)).toEqual([...after.pages].sort(ascending));
  const taken = Array.from({ length: counter[0] - 1 }, (_, index) => page(index + 1));
  expect([root, ...linked, ...ends.flatMap((thread) => thread.spares)].sort(ascending)).toEqual(taken);
});
