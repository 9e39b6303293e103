import type { Comparison } from '../harness/comparison.js';
import { type Goal, medianOf } from '../harness/goals.js';
import type { Suite, SuiteMeasurements } from '../harness/suite.js';
import type { PageAllocatorParameters } from '../variants/page-allocator.js';
import type { PhysicalMemoryParameters } from '../variants/physical-memory.js';
import type { ShardExtentsParameters } from '../variants/shard-extents.js';
import type { TrackerParameters } from '../variants/tracker.js';
import { PUBLISHED_NOTE, walkAndReserve, walkGoals } from './walk-comparison.js';

const PAGE_SIZE = 4096;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const TRACKER = new URL('../variants/tracker.js', import.meta.url);
const PAGE_ALLOCATOR = new URL('../variants/page-allocator.js', import.meta.url);
const SHARD_EXTENTS = new URL('../variants/shard-extents.js', import.meta.url);
const PHYSICAL_MEMORY = new URL('../variants/physical-memory.js', import.meta.url);

const SPACE = 64 * GIB;
/** An odd number, so that a range is split to several orders. */
const SHORT_RANGE = 61;
/** A page less than 1 GiB: ranges that begin anywhere, of all orders up to 17. */
const LONG_RANGE = 2 ** 18 - 1;

const USUAL = { call: 'folios', order: 0, run: 1, scattered: false, apart: true } as const;

interface Pattern extends Partial<Omit<TrackerParameters, 'action' | 'threads' | 'pages' | 'space'>> {
  readonly name: string;
  /** As much as 64 GiB, because an object takes as long as a page. */
  readonly whole?: boolean;
}

/** How pages are preserved. Two threads have a half of the space each, as shards have memory of their own. */
const PATTERNS: readonly Pattern[] = [
  { name: 'random pages', scattered: true },
  { name: 'sequential pages' },
  { name: `ranges of ${SHORT_RANGE} pages`, call: 'pages', run: SHORT_RANGE },
  { name: `ranges of ${LONG_RANGE} pages`, call: 'pages', run: LONG_RANGE, whole: true },
  { name: 'folios of 4 MiB', order: 10, whole: true },
  { name: 'folios of 2 MiB, 512 a call', order: 9, run: 512, whole: true },
];

/** What no shard does: both threads all over the same memory, where each waits for cache lines that the other had last. */
const MIXED: Pattern = { name: 'random pages, not apart', scattered: true, apart: false };

/** The atomic operations alone, without a tracker: nothing that marks a page with one of them can cost less. */
const BARE: readonly Pattern[] = [PATTERNS[0], PATTERNS[1], MIXED].map((pattern) => ({ ...pattern, call: 'bits' }));

/** Warm, with two workers. */
const TRACKER_GOALS: readonly [pattern: string, pass: number, aim: number][] = [
  ['random pages', 20, 11],
  ['sequential pages', 10, 6],
  [`ranges of ${LONG_RANGE} pages`, 0.1, 0.02],
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
    note('Linux preserves a page in 37 to 46 ns, by published figures: one call at a time, because of its mutex');
    yield tracker(quick, rounds(15));
    yield allocator(quick ? 2 ** 12 : 2 ** 15, rounds(15));
    yield extents(quick ? 2 ** 13 : 2 ** 16, rounds(11));
    yield accesses(rounds(9));
    note(PUBLISHED_NOTE);
    yield walkAndReserve(quick, rounds(7));
  },

  goals: (measured) => [...trackerGoals(measured), ...walkGoals(measured)],
};

const TRACKER_TITLE = `the tracker: pages of ${SPACE / GIB} GiB`;

function tracker(quick: boolean, rounds: number): Comparison {
  const variant = ({ name, whole = false, ...pattern }: Pattern, threads: number, action: TrackerAction) => {
    const pages = whole ? SPACE / PAGE_SIZE : quick ? 2 ** 18 : 2 ** 22;
    const parameters: TrackerParameters = {
      ...USUAL,
      ...pattern,
      ...{ threads, pages, space: SPACE, action: action === 'unpreserve' ? action : 'preserve' },
    };
    return { name: trackerVariant(name, threads, action), module: TRACKER, parameters };
  };
  const variants = [1, 2].flatMap((threads) => [
    ...[...PATTERNS, ...(threads > 1 ? [MIXED] : [])].flatMap((pattern) => [
      variant(pattern, threads, 'preserve'),
      variant(pattern, threads, 'unpreserve'),
    ]),
    ...BARE.filter(({ apart = true }) => apart || threads > 1).map((pattern) => variant(pattern, threads, 'atomic OR')),
  ]);
  const reference = trackerVariant('sequential pages', 1);
  return { title: TRACKER_TITLE, unit: 'ns/page', reference, variants, rounds };
}

type TrackerAction = TrackerParameters['action'] | 'atomic OR';

function trackerVariant(pattern: string, threads: number, action: TrackerAction = 'preserve'): string {
  return `${action} ${pattern}, ${threads} thread${threads === 1 ? '' : 's'}`;
}

function trackerGoals({ comparisons }: SuiteMeasurements): Goal[] {
  const result = comparisons.find(({ title }) => title === TRACKER_TITLE);
  return TRACKER_GOALS.map(([pattern, pass, aim]) => {
    const name = trackerVariant(pattern, 2);
    return { name, unit: 'ns/page', better: 'less', pass, aim, ...medianOf(result, name) };
  });
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

/** What one shard allocates and frees in its extents. */
function extents(pages: number, rounds: number): Comparison {
  const variants = (['fill', 'churn'] as const).flatMap((pattern) =>
    [undefined, 0, 3].map((order) => {
      const parameters: ShardExtentsParameters = { pattern, pages, ...(order !== undefined && { order }) };
      return { name: extentsVariant(parameters), module: SHARD_EXTENTS, parameters };
    }),
  );
  return {
    title: `extents of a shard: ${pages} pages, an allocation and a free`,
    unit: 'ns/pair',
    reference: extentsVariant({ pattern: 'fill' }),
    variants,
    rounds,
  };
}

function extentsVariant({ pattern, order }: Omit<ShardExtentsParameters, 'pages'>): string {
  return `${pattern}, ${order === undefined ? 'pages' : `folios of order ${order}`}`;
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
