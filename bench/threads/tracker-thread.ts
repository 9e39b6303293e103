/** A thread that marks pages in the tracker, or takes marks off. */
import {
  naturalOrders,
  PAGE_SIZE,
  type PhysicalAddress,
  RadixTree,
  type SharedMemoryHandle,
  SharedPhysicalMemory,
} from '#dist/memblock/index.js';
import { type PreparedJob, serveTeam } from '../harness/team-member.js';

export interface TrackerJob {
  readonly memory: SharedMemoryHandle;
  readonly root: PhysicalAddress;
  /** The first page of the space, and how many pages it has, a power of two. */
  readonly base: PhysicalAddress;
  readonly pages: number;
  /** How many pages this thread marks, from `first` on in the order of `pattern`. */
  readonly first: number;
  readonly count: number;
  /** `ranges`: as `ctx.preserve()` does it, split to natural orders. */
  readonly pattern: 'sequential' | 'random' | 'ranges';
  /** Pages of each range. */
  readonly rangePages: number;
  readonly action: 'set' | 'clear';
}

/** Odd, so that multiplying by it modulo a power of two hits every page once, in an order that no cache foresees. */
const SCATTER = 0x9e3779b1;

// The tree stays with the thread as a run's does: which leaves it knows is part of what is measured.
let attached: { root: number; handle: SharedMemoryHandle; tree: RadixTree } | undefined;

serveTeam<TrackerJob>((job) => {
  if (attached === undefined || attached.root !== job.root) {
    const memory = SharedPhysicalMemory.attach(job.memory);
    attached = { root: job.root, handle: job.memory, tree: RadixTree.attach(memory, job.root) };
  }
  return job.pattern === 'ranges' ? ranges(attached.tree, job) : single(attached.tree, job);
});

function single(tree: RadixTree, { base, pages, first, count, pattern, action }: TrackerJob): PreparedJob {
  const factor = pattern === 'random' ? SCATTER : 1;
  const mask = pages - 1;
  return {
    run() {
      for (let index = first; index < first + count; index++) {
        const page = Math.imul(index, factor) & mask;
        const address = (base + page * PAGE_SIZE) as PhysicalAddress;
        if (action === 'set') tree.set(address, 0);
        else tree.clear(address, 0);
      }
    },
  };
}

function ranges(tree: RadixTree, { base, first, count, rangePages, action }: TrackerJob): PreparedJob {
  return {
    run() {
      for (let index = first; index < first + count; index += rangePages) {
        const length = Math.min(rangePages, first + count - index);
        for (const folio of naturalOrders((base + index * PAGE_SIZE) as PhysicalAddress, length)) {
          if (action === 'set') tree.set(folio.address, folio.order);
          else tree.clear(folio.address, folio.order);
        }
      }
    },
  };
}
