/** Threads that preserve pages, or take that back. */
import {
  after,
  PAGE_SIZE,
  type PhysicalAddress,
  physicalAddress,
  RadixTree,
  SharedPhysicalMemory,
} from '#dist/memblock/index.js';
import type { Measured } from '../harness/comparison.js';
import { ThreadTeam } from '../harness/thread-team.js';
import type { TrackerJob } from '../threads/tracker-thread.js';

export interface TrackerParameters extends Pick<TrackerJob, 'call' | 'order' | 'run' | 'scattered' | 'action'> {
  readonly threads: number;
  /** Each thread keeps to a part of the space, as shards do; or, with scattered pages, all use all of it. */
  readonly apart: boolean;
  /** Pages that are preserved, by all threads together. */
  readonly pages: number;
  /** Bytes of memory that is tracked but not there, as guests' RAM is; a power of two. */
  readonly space: number;
}

const THREAD_MODULE = new URL('../threads/tracker-thread.js', import.meta.url);
const TABLES = { base: physicalAddress(0), size: 64 * 2 ** 20 };
const SPACE = physicalAddress(4 * 2 ** 30);
const MAX_ORDER = 18;

export default function tracker({ threads, pages, space, apart, action, ...how }: TrackerParameters): Measured {
  const team = new ThreadTeam<TrackerJob>(THREAD_MODULE, threads);
  const { memory, root } = buildTree(space);
  const bits = new SharedArrayBuffer(space / PAGE_SIZE / 8);
  const run = async (what: TrackerJob['action']): Promise<number> => {
    const count = pages / threads;
    const where = { memory: memory.handle, root, base: SPACE, bits };
    const part = space / PAGE_SIZE / (apart ? threads : 1);
    const jobs = Array.from({ length: threads }, (_, member) => {
      const mine = apart ? { start: member * part, first: 0 } : { start: 0, first: member * count };
      return { job: { ...where, ...how, ...mine, pages: part, count, action: what } };
    });
    const { began, ended } = await team.run(jobs);
    return Number(ended - began) / pages;
  };
  return {
    async measure() {
      // Once for nothing: since the last round, other variants had the caches.
      await run('preserve');
      await run('unpreserve');
      const [preserve, unpreserve] = [await run('preserve'), await run('unpreserve')];
      return action === 'preserve' ? preserve : unpreserve;
    },
  };
}

function buildTree(space: number): { memory: SharedPhysicalMemory; root: PhysicalAddress } {
  const memory = SharedPhysicalMemory.create([
    { ...TABLES, nid: 0, backed: true },
    { base: SPACE, size: space, nid: 0, backed: false },
  ]);
  let table = 0;
  const tree = RadixTree.create(memory, () => after(TABLES.base, table++ * PAGE_SIZE));
  tree.ensureRange(SPACE, space / PAGE_SIZE, MAX_ORDER);
  return { memory, root: tree.root };
}
