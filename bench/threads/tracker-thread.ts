/** A thread that preserves pages, or takes that back. */
import {
  PAGE_SIZE,
  type PhysicalAddress,
  PreservedPages,
  RadixTree,
  type SharedMemoryHandle,
  SharedPhysicalMemory,
} from '#dist/memblock/index.js';
import { type PreparedJob, serveTeam } from '../harness/team-member.js';

// Not imported where it is needed for each page: V8 takes a module's own constants into the code, but loads others each time.
const PAGE = PAGE_SIZE;

export interface TrackerJob {
  readonly memory: SharedMemoryHandle;
  readonly root: PhysicalAddress;
  /** A bit for each page from `base` on, which has nothing to do with the tracker. */
  readonly bits: SharedArrayBuffer;
  readonly base: PhysicalAddress;
  /** This thread's space: its first page after `base`, and how many pages it has, a power of two. */
  readonly start: number;
  readonly pages: number;
  /** How many pages this thread preserves, and which in the order of its space: from number `first` on. */
  readonly first: number;
  readonly count: number;
  /**
   * Folios of `order`, `run` with each call; or ranges of `run` pages, which are split to natural orders; or no call, but
   * one atomic operation on `bits` for each page: the least that a mark can cost.
   */
  readonly call: 'folios' | 'pages' | 'bits';
  readonly order: number;
  readonly run: number;
  /** Single pages alone: in an order that no cache foresees. */
  readonly scattered: boolean;
  readonly action: 'preserve' | 'unpreserve';
}

/**
 * Page number `index` of an order that no cache foresees. Each step maps [0, mask] onto itself, so every page comes once.
 * (Multiplying alone would not do: its multiples come back near the same places after a few steps.)
 */
function scatteredPage(index: number, mask: number): number {
  let page = Math.imul(index ^ (index >>> 12), 0x9e3779b1) & mask;
  page = Math.imul(page ^ (page >>> 12), 0x9e3779b1) & mask;
  return page ^ (page >>> 12);
}
/** As many areas as a host of one node has; the pages are in none. */
const SCRATCH = [0, 1, 2].map((number) => ({
  kind: 'global' as const,
  address: (2 ** 50 + number * 2 ** 30) as PhysicalAddress,
  size: 2 ** 22,
}));

// It stays with the thread as a run's does: which leaves it knows is part of what is measured.
let attached: { root: number; preserved: PreservedPages } | undefined;

serveTeam<TrackerJob>((job) => {
  if (attached === undefined || attached.root !== job.root) {
    const memory = SharedPhysicalMemory.attach(job.memory);
    attached = { root: job.root, preserved: new PreservedPages(RadixTree.attach(memory, job.root), memory, SCRATCH) };
  }
  const { preserved } = attached;
  if (job.call === 'bits') return bare(new Int32Array(job.bits), job);
  if (job.call === 'pages') return ranges(preserved, job);
  return job.order === 0 && job.run === 1 ? single(preserved, job) : folios(preserved, job);
});

/** A loop for each call and order: with two in one, V8 takes neither into it. */
function single(preserved: PreservedPages, { base, start, pages, first, count, ...how }: TrackerJob): PreparedJob {
  const begin = base + start * PAGE;
  const end = first + count;
  const mask = pages - 1;
  const inARow = {
    preserve() {
      for (let index = first; index < end; index++) {
        preserved.preserveFolio((begin + index * PAGE) as PhysicalAddress, 0);
      }
    },
    unpreserve() {
      for (let index = first; index < end; index++) {
        preserved.unpreserveFolio((begin + index * PAGE) as PhysicalAddress, 0);
      }
    },
  };
  const scattered = {
    preserve() {
      for (let index = first; index < end; index++) {
        preserved.preserveFolio((begin + scatteredPage(index, mask) * PAGE) as PhysicalAddress, 0);
      }
    },
    unpreserve() {
      for (let index = first; index < end; index++) {
        preserved.unpreserveFolio((begin + scatteredPage(index, mask) * PAGE) as PhysicalAddress, 0);
      }
    },
  };
  return { run: (how.scattered ? scattered : inARow)[how.action] };
}

/** Of the work of {@link single} for the same pages, the atomic operation alone; a bit that is set costs the same. */
function bare(bits: Int32Array, { start, pages, first, count, scattered }: TrackerJob): PreparedJob {
  const end = first + count;
  const mask = pages - 1;
  return {
    run: scattered
      ? () => {
          for (let index = first; index < end; index++) {
            const page = start + scatteredPage(index, mask);
            Atomics.or(bits, page >>> 5, 1 << (page & 31));
          }
        }
      : () => {
          for (let page = start + first; page < start + end; page++) Atomics.or(bits, page >>> 5, 1 << (page & 31));
        },
  };
}

function folios(
  preserved: PreservedPages,
  { base, start, first, count, order, run: length, action }: TrackerJob,
): PreparedJob {
  const step = length * 2 ** order;
  return {
    run() {
      for (let index = first; index < first + count; index += step) {
        const address = (base + (start + index) * PAGE) as PhysicalAddress;
        if (length === 1) {
          if (action === 'preserve') preserved.preserveFolio(address, order);
          else preserved.unpreserveFolio(address, order);
        } else if (action === 'preserve') preserved.preserveFolios(address, order, length);
        else preserved.unpreserveFolios(address, order, length);
      }
    },
  };
}

function ranges(
  preserved: PreservedPages,
  { base, start, first, count, run: length, action }: TrackerJob,
): PreparedJob {
  return {
    run() {
      for (let index = first; index < first + count; index += length) {
        const address = (base + (start + index) * PAGE) as PhysicalAddress;
        const pages = Math.min(length, first + count - index);
        if (action === 'preserve') preserved.preservePages(address, pages);
        else preserved.unpreservePages(address, pages);
      }
    },
  };
}
