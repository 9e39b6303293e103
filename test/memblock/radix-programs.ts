import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict';
import { physicalAddress as at, PAGE_SIZE, type PhysicalAddress } from '#dist/memblock/address.js';
import type { SharedMemoryHandle } from '#dist/memblock/physical-memory.js';
import type { RadixTree } from '#dist/memblock/radix-tree.js';
import type { Program } from '../hashstage/interleaving/program.js';
import { type Load, loadModules, type Mutation } from '../hashstage/interleaving/shipped.js';

/** What the checker of test/hashstage/interleaving drives here: the tree, and the memory that it lies in. */
type Modules = typeof import('#dist/memblock/radix-tree.js') & typeof import('#dist/memblock/physical-memory.js');

export function loadRadix(mutations: readonly Mutation[] = []): Promise<Load<Modules>> {
  return loadModules<Modules>(['#dist/memblock/radix-tree.js', '#dist/memblock/physical-memory.js'], mutations);
}

/** A few pages of order 0 by number, `count` of them from `first` on. */
export interface Run {
  readonly first: number;
  readonly count: number;
}

/** What one thread does with a tree of its own, attached to the shared one. */
interface Action {
  readonly call: 'set' | 'setRun' | 'clear' | 'clearRun';
  readonly run: Run;
}

/** Two threads on one tree. Add one to {@link radixPrograms} for each new thing that threads may do to a tree at once. */
export interface RadixProgram {
  readonly name: string;
  /** The path to this page is there before there are threads. */
  readonly path: number;
  /** Marked before there are threads. */
  readonly marked?: readonly Run[];
  readonly threads: readonly [Action, Action];
  /** How many threads succeed; who does not must get KHO_EEXIST or KHO_ENOENT. */
  readonly succeed: number;
  /** How many pages the two link together. */
  readonly links?: number;
}

const set = (page: number): Action => ({ call: 'set', run: { first: page, count: 1 } });
const clear = (page: number): Action => ({ call: 'clear', run: { first: page, count: 1 } });
const setRun = (first: number, count: number): Action => ({ call: 'setRun', run: { first, count } });
const clearRun = (first: number, count: number): Action => ({ call: 'clearRun', run: { first, count } });

/** Pages whose marks are in the next leaf; below the next table of level 1. */
const NEXT_LEAF = 2 ** 15;
const NEXT_TABLE = 2 ** 24;

export const LEAF = 'two threads need the same missing leaf';
export const BRANCH = 'two threads need the same missing table, and the same leaf below it';
export const TABLE = 'two threads need the same missing table, and each a leaf of its own below it';
export const BESIDE = 'a run is marked beside a mark in the same word';
export const UNDO = 'a run that is marked in part is undone beside a mark in the same word';
export const OVERLAP = 'two runs want the same bits';
export const WORDS = 'a run over two words meets a mark in the second';
export const CLEAR = 'a mark is taken back beside a mark in the same word';
export const CLEAR_RUN = 'a run is taken back beside a mark in the same word';
export const CLEAR_UNDO = 'a run that is marked in part is not taken back, beside a mark in the same word';

export const radixPrograms: readonly RadixProgram[] = [
  { name: LEAF, path: NEXT_LEAF, threads: [set(0), set(1)], succeed: 2, links: 1 },
  {
    name: 'two threads mark the same page in a missing leaf',
    path: NEXT_LEAF,
    threads: [set(0), set(0)],
    succeed: 1,
    links: 1,
  },
  { name: BRANCH, path: NEXT_TABLE, threads: [set(0), set(1)], succeed: 2, links: 2 },
  { name: TABLE, path: NEXT_TABLE, threads: [set(0), set(NEXT_LEAF)], succeed: 2, links: 3 },
  { name: BESIDE, path: 0, threads: [setRun(0, 8), set(9)], succeed: 2 },
  { name: UNDO, path: 0, marked: [{ first: 5, count: 1 }], threads: [setRun(0, 8), set(9)], succeed: 1 },
  { name: OVERLAP, path: 0, threads: [setRun(0, 8), setRun(4, 8)], succeed: 1 },
  { name: WORDS, path: 0, threads: [setRun(0, 64), set(40)], succeed: 1 },
  { name: CLEAR, path: 0, marked: [{ first: 3, count: 1 }], threads: [clear(3), set(4)], succeed: 2 },
  { name: CLEAR_RUN, path: 0, marked: [{ first: 0, count: 8 }], threads: [clearRun(0, 8), set(9)], succeed: 2 },
  { name: CLEAR_UNDO, path: 0, marked: [{ first: 0, count: 7 }], threads: [clearRun(0, 8), set(9)], succeed: 1 },
];

/** The memory is this large: a path is 6 pages, and each thread has 3 to make tables of. */
const PAGES = 12;
const SETUP_PAGES = 6;
const POOL_PAGES = 3;
/** Where marks are looked for in the end: all that a program names lies there. */
const LOOKED_AT: readonly Run[] = [
  { first: 0, count: 70 },
  { first: NEXT_LEAF, count: 2 },
];

interface Ended {
  /** What was thrown; undefined if nothing was. */
  readonly code: string | undefined;
  readonly linked: readonly number[];
  readonly spares: readonly number[];
}

interface Shared {
  readonly handle: SharedMemoryHandle;
  readonly root: PhysicalAddress;
}

const page = (number: number): PhysicalAddress => at(number * PAGE_SIZE);

function pool(first: number, count: number): () => PhysicalAddress {
  let next = first;
  return () => {
    ok(next < first + count, 'the pool of pages is used up');
    return page(next++);
  };
}

function act(tree: RadixTree, { call, run: { first, count } }: Action): string | undefined {
  try {
    if (call === 'set' || call === 'clear') tree[call](page(first), 0);
    else tree[call](page(first), 0, count);
    return undefined;
  } catch (error) {
    // By its code: simulated modules have a class KhoError of their own.
    if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
    throw error;
  }
}

/** The program as the checker wants it: two threads `w1` and `w2`, and `end`, which awaits them and looks at every mark. */
export function radixProgram(load: Load<Modules>, program: RadixProgram): Program<Modules> {
  const workers = program.threads.map((action, index) => ({
    name: `w${index + 1}`,
    run: ({ RadixTree, SharedPhysicalMemory }: Modules, shared: unknown): Ended => {
      const { handle, root } = shared as Shared;
      const allocate = pool(SETUP_PAGES + index * POOL_PAGES, POOL_PAGES);
      const tree = RadixTree.attach(SharedPhysicalMemory.attach(handle), root, allocate);
      const code = act(tree, action);
      return { code, linked: [...tree.pages()], spares: tree.takeSpares() };
    },
  }));
  return {
    name: program.name,
    sharedWords: (PAGES * PAGE_SIZE) / 4,
    load,
    setup: ({ RadixTree, SharedPhysicalMemory }): Shared => {
      const memory = SharedPhysicalMemory.create([{ base: at(0), size: PAGES * PAGE_SIZE, nid: 0, backed: true }]);
      const { handle } = memory;
      const tree = RadixTree.create(memory, pool(0, SETUP_PAGES));
      tree.ensure(page(program.path), 0);
      for (const { first, count } of program.marked ?? []) tree.setRun(page(first), 0, count);
      return { handle, root: tree.root };
    },
    threads: [
      ...workers,
      {
        name: 'end',
        after: ['w1', 'w2'],
        run: ({ RadixTree, SharedPhysicalMemory }, shared) => {
          const { handle, root } = shared as Shared;
          const tree = RadixTree.attach(SharedPhysicalMemory.attach(handle), root);
          return pagesOf(LOOKED_AT).filter((number) => tree.test(page(number), 0));
        },
      },
    ],
    check: ({ w1, w2, end }) => check(program, [w1 as Ended, w2 as Ended], end as number[]),
  };
}

function pagesOf(runs: readonly Run[]): number[] {
  return runs.flatMap(({ first, count }) => Array.from({ length: count }, (_, index) => first + index));
}

/** What succeeded is there as a whole, what did not as if it had never been; pages are linked once or spare. */
function check(
  { marked = [], threads, succeed, links = 0 }: RadixProgram,
  ended: readonly Ended[],
  end: number[],
): void {
  const wanted = new Set(pagesOf(marked));
  let succeeded = 0;
  for (const [index, { code }] of ended.entries()) {
    const { call, run } = threads[index] as Action;
    const marks = call === 'set' || call === 'setRun';
    if (code !== undefined) {
      strictEqual(code, marks ? 'KHO_EEXIST' : 'KHO_ENOENT');
      continue;
    }
    succeeded++;
    for (const number of pagesOf([run])) marks ? wanted.add(number) : wanted.delete(number);
  }
  strictEqual(succeeded, succeed, 'the threads that succeeded');
  deepStrictEqual(
    end,
    [...wanted].sort((a, b) => a - b),
    'the marks in the end',
  );
  strictEqual(
    ended.reduce((sum, { linked }) => sum + linked.length, 0),
    links,
    'the pages that were linked',
  );
  for (const [index, { linked, spares }] of ended.entries()) {
    const first = SETUP_PAGES + index * POOL_PAGES;
    const taken = [...linked, ...spares].sort((a, b) => a - b);
    deepStrictEqual(
      taken,
      taken.map((_, at) => page(first + at)),
      'each page that was taken is linked or spare, once',
    );
  }
}
