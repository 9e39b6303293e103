/** The successor's early boot, as far as preserved memory goes: from the tracker's root to memory that is reserved. */
import { KHO_V4 } from '#dist/abi/index.js';
import {
  after,
  FolioIndex,
  FolioRuns,
  Memblock,
  PAGE_SIZE,
  type PhysicalAddress,
  physicalAddress,
  RadixTree,
  SharedPhysicalMemory,
  walkRadixRuns,
} from '#dist/memblock/index.js';
import { PreservedMemory } from '#dist/successor/preserved-memory.js';
import { reservePreserved } from '#dist/successor/reserve-preserved.js';
import type { Measured } from '../harness/comparison.js';

export interface WalkReserveParameters {
  /** Preserved pages, each a folio of order 0. */
  readonly pages: number;
  /** How many lie side by side; each such run at a random place of its own stretch, which is four times as long. All: `pages`. */
  readonly run: number;
  /** How far it goes: all of it, or to the index, with nothing reserved. */
  readonly until: 'reserved' | 'index';
}

const MIB = 2 ** 20;
const GIB = 2 ** 30;
/** Of the tracker's pages; the first page is the root FDT's. */
const TABLES = { base: physicalAddress(0), size: 128 * MIB };
/** Where memblock's arrays grow. */
const SCRATCH = { address: physicalAddress(GIB), size: 512 * MIB };
const SPACE = physicalAddress(4 * GIB);
const SPREAD = 4;

export default function walkReserve({ pages, run, until }: WalkReserveParameters): Measured {
  const spread = run === pages ? 1 : SPREAD;
  const memory = SharedPhysicalMemory.create([
    { ...TABLES, nid: 0, backed: true },
    { base: SCRATCH.address, size: SCRATCH.size, nid: 0, backed: false },
    { base: SPACE, size: pages * spread * PAGE_SIZE, nid: 0, backed: false },
  ]);
  const root = buildTree(memory, pages, run, spread);
  const before = process.memoryUsage.rss();
  let most = 0;
  let notes = '';
  return {
    measure() {
      const memblock = bootMemblock(memory);
      const start = process.hrtime.bigint();
      const objects = until === 'index' ? indexOf(memory, root) : reserve(memory, memblock, root);
      const time = Number(process.hrtime.bigint() - start) / objects.count;
      most = Math.max(most, process.memoryUsage.rss() - before);
      const regions = until === 'index' ? '' : `${memblock.reserved.regions.length} regions, `;
      notes = `${objects.count} objects, ${objects.runCount} runs, ${regions}`;
      return time;
    },
    notes: () => [`${notes}${Math.round(most / MIB)} MiB of RSS at most, garbage of earlier rounds with it`],
  };
}

function indexOf(memory: SharedPhysicalMemory, root: PhysicalAddress): FolioIndex {
  const runs = new FolioRuns();
  walkRadixRuns(memory, root, (address, order, count) => runs.add(address, order, count));
  return new FolioIndex(runs);
}

function reserve(memory: SharedPhysicalMemory, memblock: Memblock, root: PhysicalAddress): FolioIndex {
  const handover = {
    form: 'sub-blobs',
    profile: KHO_V4,
    root: { profile: KHO_V4, memoryMap: root, subtrees: [] },
  } as const;
  const objects = reservePreserved({ memory, memblock, handover, root: TABLES.base, scratch: [SCRATCH] });
  new PreservedMemory(objects);
  return objects;
}

/** What a kernel has by then: memory from the firmware's map, and scratch to allocate in. */
function bootMemblock(memory: SharedPhysicalMemory): Memblock {
  const memblock = new Memblock();
  memblock.allowResize();
  for (const { base, size } of memory.ranges) memblock.add(base, size);
  memblock.markKhoScratch(SCRATCH.address, SCRATCH.size);
  memblock.setKhoScratchOnly();
  return memblock;
}

function buildTree(memory: SharedPhysicalMemory, pages: number, run: number, spread: number): PhysicalAddress {
  let table = 1;
  const tree = RadixTree.create(memory, () => after(TABLES.base, table++ * PAGE_SIZE));
  tree.ensure(TABLES.base, 0);
  tree.set(TABLES.base, 0);
  tree.ensureRange(SPACE, pages * spread, 0);
  let random = 1;
  for (let first = 0; first < pages; first += run) {
    random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
    const offset = Math.floor((random / 2 ** 32) * run * (spread - 1));
    tree.setRun(after(SPACE, (first * spread + offset) * PAGE_SIZE), 0, run);
  }
  return tree.root;
}
