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

export interface TrackerJob {
  readonly memory: SharedMemoryHandle;
  readonly root: PhysicalAddress;
  /** The first page of the space, and how many pages it has, a power of two. */
  readonly base: PhysicalAddress;
  readonly pages: number;
  /** How many pages this thread preserves, from `first` on. */
  readonly first: number;
  readonly count: number;
  /** Folios of `order`, `run` with each call; or ranges of `run` pages, which are split to natural orders. */
  readonly call: 'folios' | 'pages';
  readonly order: number;
  readonly run: number;
  /** Single pages alone: in an order that no cache foresees. */
  readonly scattered: boolean;
  readonly action: 'preserve' | 'unpreserve';
}

/**
 * Page number `index` of an order that no cache foresees. Each step maps [0, mask] onto itself, so every page comes once.
 * (Multiplying alone would not do: its multiples come back near the same places after a few steps.) The same work for
 * pages in a row, with a factor and a shift that change nothing.
 */
function pageAt(index: number, { factor, shift }: typeof SCATTERED, mask: number): number {
  let page = Math.imul(index ^ (index >>> shift), factor) & mask;
  page = Math.imul(page ^ (page >>> shift), factor) & mask;
  return page ^ (page >>> shift);
}
const SCATTERED = { factor: 0x9e3779b1, shift: 12 };
const IN_A_ROW: typeof SCATTERED = { factor: 1, shift: 31 };
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
  if (job.call === 'pages') return ranges(preserved, job);
  return job.order === 0 && job.run === 1 ? single(preserved, job) : folios(preserved, job);
});

/** A loop for each call: with both in one, V8 takes neither into it. */
function single(preserved: PreservedPages, { base, pages, first, count, scattered, action }: TrackerJob): PreparedJob {
  const place = scattered ? SCATTERED : IN_A_ROW;
  const mask = pages - 1;
  const end = first + count;
  return {
    run:
      action === 'preserve'
        ? () => {
            for (let index = first; index < end; index++) {
              preserved.preserveFolio((base + pageAt(index, place, mask) * PAGE_SIZE) as PhysicalAddress, 0);
            }
          }
        : () => {
            for (let index = first; index < end; index++) {
              preserved.unpreserveFolio((base + pageAt(index, place, mask) * PAGE_SIZE) as PhysicalAddress, 0);
            }
          },
  };
}

function folios(
  preserved: PreservedPages,
  { base, first, count, order, run: length, action }: TrackerJob,
): PreparedJob {
  const step = length * 2 ** order;
  return {
    run() {
      for (let index = first; index < first + count; index += step) {
        const address = (base + index * PAGE_SIZE) as PhysicalAddress;
        if (length === 1) {
          if (action === 'preserve') preserved.preserveFolio(address, order);
          else preserved.unpreserveFolio(address, order);
        } else if (action === 'preserve') preserved.preserveFolios(address, order, length);
        else preserved.unpreserveFolios(address, order, length);
      }
    },
  };
}

function ranges(preserved: PreservedPages, { base, first, count, run: length, action }: TrackerJob): PreparedJob {
  return {
    run() {
      for (let index = first; index < first + count; index += length) {
        const address = (base + index * PAGE_SIZE) as PhysicalAddress;
        const pages = Math.min(length, first + count - index);
        if (action === 'preserve') preserved.preservePages(address, pages);
        else preserved.unpreservePages(address, pages);
      }
    },
  };
}
