/** Threads that digest pages, or compare them, each a shard of its own. */
import {
  after,
  ExtentTable,
  FrozenTable,
  PAGE_SIZE,
  physicalAddress,
  SharedPhysicalMemory,
} from '#dist/memblock/index.js';
import type { Measured } from '../harness/comparison.js';
import { ThreadTeam } from '../harness/thread-team.js';
import type { FrozenJob } from '../threads/frozen-thread.js';

export interface FrozenPagesParameters {
  readonly action: FrozenJob['action'];
  readonly threads: number;
  /** Of all threads together. */
  readonly pages: number;
}

const THREAD_MODULE = new URL('../threads/frozen-thread.js', import.meta.url);
/** Pages of an extent: 4 MiB. */
const EXTENT = 1024;

export default function frozenPages({ action, threads, pages }: FrozenPagesParameters): Measured {
  const base = physicalAddress(0);
  const memory = SharedPhysicalMemory.create([{ base, size: pages * PAGE_SIZE, nid: 0, backed: true }]);
  memory.fill(base, pages * PAGE_SIZE, 0x5a);
  const share = pages / threads;
  const grants = Array.from({ length: threads }, (_, thread) => ({
    pages: share,
    ranges: Array.from({ length: share / EXTENT }, (_, extent) => ({
      base: after(base, (thread * share + extent * EXTENT) * PAGE_SIZE),
      pages: EXTENT,
    })),
  }));
  const [extents, table] = [ExtentTable.create(grants), FrozenTable.create(grants)];
  table.touch();
  const team = new ThreadTeam<FrozenJob>(THREAD_MODULE, threads);
  const run = async (what: FrozenJob['action']): Promise<number> => {
    const common = { memory: memory.handle, extents: extents.handle, table: table.handle, action: what };
    const { began, ended } = await team.run(grants.map((_, shard) => ({ job: { ...common, shard } })));
    return Number(ended - began) / pages;
  };
  return {
    async measure() {
      const [digest, compare] = [await run('digest'), await run('compare')];
      return action === 'digest' ? digest : compare;
    },
  };
}
