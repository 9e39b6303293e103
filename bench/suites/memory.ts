import type { Comparison } from '../harness/comparison.js';
import type { Suite } from '../harness/suite.js';
import type { PageAllocatorParameters } from '../variants/page-allocator.js';
import type { PhysicalMemoryParameters } from '../variants/physical-memory.js';
import type { TrackerParameters } from '../variants/tracker.js';
import { PUBLISHED_NOTE, walkAndReserve, walkGoals } from './walk-comparison.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const TRACKER = new URL('../variants/tracker.js', import.meta.url);
const PAGE_ALLOCATOR = new URL('../variants/page-allocator.js', import.meta.url);
const PHYSICAL_MEMORY = new URL('../variants/physical-memory.js', import.meta.url);

/** An odd number, so that a range is split to several orders. */
const RANGE_PAGES = 61;

const PATTERNS: readonly [pattern: TrackerParameters['pattern'], name: string][] = [
  ['sequential', 'sequential pages'],
  ['random', 'random pages'],
  ['ranges', `ranges of ${RANGE_PAGES} pages`],
];

const ACCESSES: readonly [call: PhysicalMemoryParameters['call'], name: string][] = [
  ['readU32', 'readU32'],
  ['writeU32', 'writeU32'],
  ['readU64Number', 'readU64Number'],
  ['writeU64', 'writeU64 of a number'],
  ['read', 'read a page'],
  ['write', 'write a page'],
  ['fill', 'fill a page'],
];

/** Preserved pages, the page allocator, words of physical memory, and the successor's walk. */
export const memorySuite: Suite = {
  async *comparisons({ quick, rounds, note }) {
    yield tracker(quick ? 2 ** 16 : 2 ** 19, rounds(9));
    yield allocator(quick ? 2 ** 12 : 2 ** 15, rounds(15));
    yield accesses(rounds(9));
    note(PUBLISHED_NOTE);
    yield walkAndReserve(quick, rounds(7));
  },

  goals: ({ comparisons }) => walkGoals(comparisons),
};

function tracker(pages: number, rounds: number): Comparison {
  const space = 64 * GIB;
  const variants = [1, 2].flatMap((threads) =>
    PATTERNS.flatMap(([pattern, name]) =>
      (['set', 'clear'] as const).map((action) => {
        const parameters: TrackerParameters = { pattern, action, threads, pages, space, rangePages: RANGE_PAGES };
        const verb = action === 'set' ? 'preserve' : 'unpreserve';
        return { name: `${verb} ${name}, ${threads} thread${threads === 1 ? '' : 's'}`, module: TRACKER, parameters };
      }),
    ),
  );
  return {
    title: `the tracker: ${pages} pages of ${space / GIB} GiB`,
    unit: 'ns/page',
    reference: 'preserve sequential pages, 1 thread',
    variants,
    rounds,
  };
}

function allocator(blocks: number, rounds: number): Comparison {
  const size = 2 * GIB;
  const variants = [0, 3, 9].flatMap((order) =>
    (['allocate', 'free'] as const).map((call) => {
      const parameters: PageAllocatorParameters = { order, blocks: Math.min(blocks, 2 ** (18 - order)), size, call };
      return { name: `${call}, order ${order}`, module: PAGE_ALLOCATOR, parameters };
    }),
  );
  return {
    title: `the page allocator: up to ${blocks} blocks of ${size / GIB} GiB`,
    unit: 'ns/block',
    reference: 'allocate, order 0',
    variants,
    rounds,
  };
}

function accesses(rounds: number): Comparison {
  const size = 16 * MIB;
  return {
    title: `physical memory: accesses to ${size / MIB} MiB, one after another`,
    unit: 'ns/access',
    reference: 'readU64Number',
    variants: ACCESSES.map(([call, name]) => {
      const parameters: PhysicalMemoryParameters = { call, size };
      return { name, module: PHYSICAL_MEMORY, parameters };
    }),
    rounds,
  };
}
