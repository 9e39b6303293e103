/** A thread that digests frozen pages, or compares them with their digests. */
import {
  after,
  ExtentTable,
  FrozenTable,
  PAGE_SIZE,
  type SharedMemoryHandle,
  SharedPhysicalMemory,
} from '#dist/memblock/index.js';
import { serveTeam } from '../harness/team-member.js';

export interface FrozenJob {
  readonly memory: SharedMemoryHandle;
  readonly extents: SharedArrayBuffer;
  readonly table: SharedArrayBuffer;
  /** The shard that is this thread's. */
  readonly shard: number;
  readonly action: 'digest' | 'compare';
}

serveTeam<FrozenJob>(({ memory: handle, extents: buffer, table, shard, action }) => {
  const memory = SharedPhysicalMemory.attach(handle);
  const extents = ExtentTable.attach(buffer).extent(shard);
  const frozen = FrozenTable.attach(table).shard(memory, extents, false);
  return {
    run() {
      for (const { base, pages } of extents.ranges) {
        if (action === 'digest') {
          frozen.freeze(base, pages);
          continue;
        }
        for (let page = 0; page < pages; page++) {
          if (frozen.firstDifference(after(base, page * PAGE_SIZE)) >= 0) throw new Error('a page has changed');
        }
      }
    },
  };
});
