import {
  after,
  PAGE_SIZE,
  PageAllocator,
  type PhysicalAddress,
  physicalAddress,
  RadixTree,
  SharedPhysicalMemory,
} from '#dist/memblock/index.js';
import type { Comparison, Variant } from '../harness/comparison.js';
import type { Suite } from '../harness/suite.js';
import { ThreadTeam } from '../harness/thread-team.js';
import type { TrackerJob } from '../threads/tracker-thread.js';

const GIB = 2 ** 30;
const MIB = 2 ** 20;
const THREAD_MODULE = new URL('../threads/tracker-thread.js', import.meta.url);
/** Memory that is tracked but not there: guests' RAM. */
const TRACKED = { base: physicalAddress(4 * GIB), pages: (64 * GIB) / PAGE_SIZE };
/** Where the tracker's tables lie. */
const TABLES = { base: physicalAddress(0), size: 64 * MIB };
const MAX_ORDER = 10;
/** An odd number, so that a range is split to several orders. */
const RANGE_PAGES = 61;

/** Preserved pages, the page allocator, and words of physical memory. */
export const memorySuite: Suite = {
  async *comparisons({ quick }) {
    const teams = [1, 2].map((threads) => new ThreadTeam<TrackerJob>(THREAD_MODULE, threads));
    try {
      yield tracker(teams, quick ? 2 ** 16 : 2 ** 19);
    } finally {
      await Promise.all(teams.map((team) => team[Symbol.asyncDispose]()));
    }
    yield allocator(quick ? 2 ** 12 : 2 ** 15);
    yield words();
  },
};

function tracker(teams: readonly ThreadTeam<TrackerJob>[], marks: number): Comparison {
  const memory = SharedPhysicalMemory.create([
    { base: TABLES.base, size: TABLES.size, nid: 0, backed: true },
    { base: TRACKED.base, size: TRACKED.pages * PAGE_SIZE, nid: 0, backed: false },
  ]);
  let table = 0;
  const tree = RadixTree.create(memory, () => after(TABLES.base, table++ * PAGE_SIZE));
  tree.ensureRange(TRACKED.base, TRACKED.pages, MAX_ORDER);
  const run = async (
    team: ThreadTeam<TrackerJob>,
    pattern: TrackerJob['pattern'],
    action: TrackerJob['action'],
  ): Promise<number> => {
    const count = marks / team.threads;
    const space = { memory: memory.handle, root: tree.root, ...TRACKED };
    const jobs = Array.from({ length: team.threads }, (_, member) => ({
      job: { ...space, first: member * count, count, pattern, rangePages: RANGE_PAGES, action },
    }));
    const { began, ended } = await team.run(jobs);
    return Number(ended - began) / marks;
  };
  const variants = teams.flatMap((team) =>
    (['sequential', 'random', 'ranges'] as const).flatMap((pattern): Variant[] => {
      const where = pattern === 'ranges' ? `in ranges of ${RANGE_PAGES} pages` : `${pattern} pages`;
      const threads = `${team.threads} thread${team.threads === 1 ? '' : 's'}`;
      return [
        {
          name: `preserve ${where}, ${threads}`,
          async measure() {
            const time = await run(team, pattern, 'set');
            await run(team, pattern, 'clear');
            return time;
          },
        },
        {
          name: `unpreserve ${where}, ${threads}`,
          async measure() {
            await run(team, pattern, 'set');
            return await run(team, pattern, 'clear');
          },
        },
      ];
    }),
  );
  return {
    title: `the tracker: ${marks} pages of ${(TRACKED.pages * PAGE_SIZE) / GIB} GiB`,
    unit: 'ns/page',
    reference: 'preserve sequential pages, 1 thread',
    variants,
    rounds: 9,
  };
}

function allocator(blocks: number): Comparison {
  const base = physicalAddress(0);
  const size = 2 * GIB;
  const pages = new PageAllocator([{ base, size, nid: 0, backed: false }]);
  pages.addFreeRange(base, size, 0);
  const taken: PhysicalAddress[] = new Array(blocks).fill(base);
  const variant = (order: number, count: number): Variant[] => {
    const allocate = (): void => {
      for (let index = 0; index < count; index++) taken[index] = pages.allocPages(order, 0);
    };
    const free = (): void => {
      for (let index = 0; index < count; index++) pages.free(taken[index] as PhysicalAddress, 2 ** order);
    };
    return [
      {
        name: `allocate, order ${order}`,
        measure() {
          const time = nanoseconds(allocate);
          free();
          return time / count;
        },
      },
      {
        name: `free, order ${order}`,
        measure() {
          allocate();
          return nanoseconds(free) / count;
        },
      },
    ];
  };
  return {
    title: `the page allocator: ${blocks} blocks of 2 GiB`,
    unit: 'ns/block',
    reference: 'allocate, order 0',
    variants: [...variant(0, blocks), ...variant(3, blocks), ...variant(9, Math.min(blocks, 512))],
    rounds: 15,
  };
}

function words(): Comparison {
  const size = 16 * MIB;
  const base = physicalAddress(0);
  const memory = SharedPhysicalMemory.create([{ base, size, nid: 0, backed: true }]);
  // Touched; and all zero, so that every word is a number.
  memory.fill(base, size, 0);
  const page = new Uint8Array(PAGE_SIZE);
  let sum = 0;
  const step = (name: string, stride: number, access: (address: PhysicalAddress) => void): Variant => ({
    name,
    measure() {
      const time = nanoseconds(() => {
        for (let offset = 0; offset < size; offset += stride) access(after(base, offset));
      });
      if (Number.isNaN(sum)) throw new Error('what was read is lost');
      return time / (size / stride);
    },
  });
  return {
    title: `physical memory: accesses to ${size / MIB} MiB, one after another`,
    unit: 'ns/access',
    reference: 'readU64Number',
    variants: [
      step('readU32', 4, (address) => {
        sum += memory.readU32(address);
      }),
      step('writeU32', 4, (address) => memory.writeU32(address, 0)),
      step('readU64Number', 8, (address) => {
        sum += memory.readU64Number(address);
      }),
      step('writeU64, number', 8, (address) => memory.writeU64(address, 0)),
      step('read a page', PAGE_SIZE, (address) => {
        sum += memory.read(address, PAGE_SIZE).length;
      }),
      step('write a page', PAGE_SIZE, (address) => memory.write(address, page)),
      step('fill a page', PAGE_SIZE, (address) => memory.fill(address, PAGE_SIZE, 0)),
    ],
    rounds: 9,
  };
}

function nanoseconds(work: () => void): number {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start);
}
