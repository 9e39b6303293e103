import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type HandoverRoot, KHO_V4 } from '#dist/abi/index.js';
import {
  physicalAddress as at,
  type Folio,
  Memblock,
  MemblockFlags,
  PAGE_SIZE,
  RadixTree,
  SharedPhysicalMemory,
  walkRadixTree,
} from '#dist/memblock/index.js';
import { PreservedMemory } from '#dist/successor/preserved-memory.js';
import { reservePreserved } from '#dist/successor/reserve-preserved.js';
import { thrown } from '../memblock/thrown.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
/** Memory for the tracker's own pages; its first page is the root FDT's. */
const TABLES = 16 * MIB;
const ROOT = at(0);
/** Where memblock's arrays grow. */
const SCRATCH = { address: at(GIB), size: 16 * MIB };

/** A host with `size` bytes from 4 GiB on, in two nodes that meet in the middle, and the tracker of `mark`. */
function host(size: number, mark: (preserve: (address: number, order: number) => void) => void) {
  const memory = SharedPhysicalMemory.create([
    { base: at(0), size: TABLES, nid: 0, backed: true },
    { base: SCRATCH.address, size: SCRATCH.size, nid: 0, backed: false },
    { base: at(4 * GIB), size: size / 2, nid: 0, backed: false },
    { base: at(4 * GIB + size / 2), size: size / 2, nid: 1, backed: false },
  ]);
  let table = 1;
  const tree = RadixTree.create(memory, () => at(table++ * PAGE_SIZE));
  const preserve = (address: number, order: number): void => {
    tree.ensure(at(address), order);
    tree.set(at(address), order);
  };
  preserve(ROOT, 0);
  mark((page, order) => preserve(4 * GIB + page * PAGE_SIZE, order));
  const memblock = (): Memblock => {
    const made = new Memblock();
    made.allowResize();
    for (const range of memory.ranges) made.addNode(range.base, range.size, range.nid);
    made.markKhoScratch(SCRATCH.address, SCRATCH.size);
    made.setKhoScratchOnly();
    return made;
  };
  const handover: HandoverRoot = {
    form: 'sub-blobs',
    profile: KHO_V4,
    root: { profile: KHO_V4, memoryMap: tree.root, subtrees: [] },
  };
  return { memory, tree, memblock, source: { memory, handover, root: ROOT, scratch: [SCRATCH] } };
}

/** As Linux does it: each folio by itself, in the order of the walk. */
function reserveOneByOne(memblock: Memblock, { memory, tree }: ReturnType<typeof host>): void {
  walkRadixTree(memory, tree.root, (address, order) => {
    memblock.reserve(address, PAGE_SIZE * 2 ** order);
    memblock.reservedMarkNoinit(address, PAGE_SIZE * 2 ** order);
  });
}

/** What is reserved, but for memblock's own arrays: those of the one that reserves more at a time grow later. */
const reservedBy = (memblock: Memblock) =>
  memblock.reserved.regions.filter(({ base }) => base < SCRATCH.address || base >= SCRATCH.address + SCRATCH.size);

test('memblock has the same regions as if each object had been reserved by itself, whatever was reserved before', () => {
  const slots = 64; // of 16 pages each, with folios of one order
  const filled = fc.record({ slot: fc.nat(slots - 1), order: fc.nat(4), keep: fc.nat(0xffff) });
  const earlier = fc.tuple(fc.nat(slots * 16 * PAGE_SIZE), fc.nat(20 * PAGE_SIZE), fc.constantFrom(0, 0x10, 0x20));
  fc.assert(
    fc.property(
      fc.uniqueArray(filled, { maxLength: 40, selector: ({ slot }) => slot }),
      fc.array(earlier, { maxLength: 6 }),
      (fills, reserved) => {
        const made = host(slots * 16 * PAGE_SIZE, (preserve) => {
          for (const { slot, order, keep } of fills) {
            for (let index = 0; index < 16 / 2 ** order; index++) {
              if ((keep >>> index) & 1) preserve(slot * 16 + index * 2 ** order, order);
            }
          }
        });
        const [all, each] = [made.memblock(), made.memblock()];
        for (const [offset, size, flags] of reserved) {
          for (const memblock of [all, each]) memblock.reserve(at(4 * GIB + offset), size, { flags });
        }
        const objects = reservePreserved({ ...made.source, memblock: all });
        reserveOneByOne(each, made);
        expect(reservedBy(all)).toEqual(reservedBy(each));
        const walked: Folio[] = [];
        walkRadixTree(made.memory, made.tree.root, (address, order) => walked.push({ address, order }));
        expect([...objects]).toEqual(walked.sort((a, b) => a.address - b.address));
      },
    ),
    { numRuns: 100 },
  );
});

test('a million pages side by side are one run and one region, even over the border of two nodes', () => {
  const pages = 2 ** 20;
  const made = host(pages * PAGE_SIZE, (preserve) => {
    for (let page = 0; page < pages; page++) preserve(page, 0);
  });
  const memblock = made.memblock();
  const objects = reservePreserved({ ...made.source, memblock });
  expect([objects.count, objects.runCount, objects.bytes]).toEqual([pages + 1, 2, (pages + 1) * PAGE_SIZE]);
  expect(memblock.reserved.regions.map(({ base, size }) => [base, size])).toEqual([
    [ROOT, PAGE_SIZE],
    [4 * GIB, pages * PAGE_SIZE],
  ]);
  const preserved = new PreservedMemory(objects);
  expect(preserved.settleAt(at(4 * GIB + 777_777 * PAGE_SIZE), 'claimed').order).toBe(0);
  preserved.settleRange(at(4 * GIB), 777_777 * PAGE_SIZE, 'discarded');
  preserved.settleRange(at(4 * GIB + 777_778 * PAGE_SIZE), (pages - 777_779) * PAGE_SIZE, 'claimed');
  expect([...preserved.unclaimed()]).toEqual([
    { address: ROOT, order: 0 },
    { address: 4 * GIB + (pages - 1) * PAGE_SIZE, order: 0 },
  ]);
  expect([...preserved.discarded()].length).toBe(777_777);
});

test('a million pages in runs of a few hundred, with larger folios between, come back as they were marked', () => {
  const [runs, length, stride] = [4096, 256, 512];
  const made = host(runs * stride * PAGE_SIZE, (preserve) => {
    for (let run = 0; run < runs; run++) {
      const first = run * stride + (run % 7) * 8;
      for (let page = 0; page < length; page++) preserve(first + page, 0);
      preserve(run * stride + length + 64, 5);
    }
  });
  const memblock = made.memblock();
  const objects = reservePreserved({ ...made.source, memblock });
  expect([objects.count, objects.runCount]).toEqual([runs * (length + 1) + 1, 2 * runs + 1]);
  const places = Array.from({ length: runs }, (_, run) => [
    [4 * GIB + (run * stride + (run % 7) * 8) * PAGE_SIZE, length * PAGE_SIZE],
    [4 * GIB + (run * stride + length + 64) * PAGE_SIZE, 32 * PAGE_SIZE],
  ]);
  const regions = reservedBy(memblock).map(({ base, size, flags }) => [base, size, flags]);
  expect(regions).toEqual([[ROOT, PAGE_SIZE], ...places.flat()].map((place) => [...place, MemblockFlags.RSRV_NOINIT]));
  for (const run of [0, 1, 2047, 2048, 4095]) {
    const first = 4 * GIB + (run * stride + (run % 7) * 8) * PAGE_SIZE;
    expect(objects.folio(objects.at(at(first + 255 * PAGE_SIZE))).order).toBe(0);
    expect(objects.at(at(first + 256 * PAGE_SIZE))).toBe(-1);
    expect(objects.folio(objects.at(at(4 * GIB + (run * stride + length + 64) * PAGE_SIZE))).order).toBe(5);
  }
});

test('what is wrong is found before anything is reserved', () => {
  const made = host(GIB, (preserve) => {
    preserve(0, 0);
    preserve(8, 3);
    preserve(9, 0);
  });
  const memblock = made.memblock();
  const before = memblock.snapshot();
  expect(thrown(() => reservePreserved({ ...made.source, memblock }))).toMatchObject({
    code: 'KHO_ETRACKER',
    message: 'the preserved objects at 0x100008000 (order 3) and 0x100009000 overlap',
  });
  // In memory, but over the border of the nodes: no region holds all of it.
  const across = host(GIB, (preserve) => preserve(0, 18));
  expect(thrown(() => reservePreserved({ ...across.source, memblock }))).toMatchObject({
    code: 'KHO_ETRACKER',
    message: 'the preserved object at 0x100000000 (order 18) is not in memory',
  });
  expect(memblock.snapshot()).toEqual(before);
});
