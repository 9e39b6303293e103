/**
 * kho_preserve_pages() against kho_restore_pages() of Linux 7.2, where a range crosses a border of nodes
 * (docs/numa-split.md). The restore is a model here; test/kernel/numa-split.test.ts asks the kernel.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PAGE_SIZE, physicalAddress } from '#dist/memblock/address.js';
import { naturalOrders } from '#dist/memblock/page-range.js';

/** Stretches of frames by the frame that each begins with, ascending, and their nodes. A node may come back. */
type Nodes = readonly [begin: number, nid: number][];
type Span = [first: number, pages: number];

/** Node 0 below the border, node 1 from it on. */
const border = (frame: number): Nodes => [[frame, 1]];

/** The node of a frame: 0 before the first stretch. */
const nodeOf = (nodes: Nodes, frame: number): number => nodes.findLast(([begin]) => begin <= frame)?.[1] ?? 0;

/** What is marked of a range: the order of each object by its first frame. */
function preserve(first: number, pages: number, nodes: Nodes): Map<number, number> {
  const sameNode = (a: number, b: number): boolean => nodeOf(nodes, a) === nodeOf(nodes, b);
  const folios = naturalOrders(physicalAddress(first * PAGE_SIZE), pages, sameNode);
  return new Map([...folios].map(({ address, order }) => [address / PAGE_SIZE, order]));
}

/** The natural blocks of a range, in which the restore walks. */
function naturalBlocks(first: number, pages: number): Span[] {
  return [...preserve(first, pages, [])].map(([frame, order]) => [frame, 2 ** order]);
}

/**
 * The rule of kho_restore_pages(): at each natural block it takes back the object that is marked at the block's first
 * frame, whatever its order, and goes on behind the block. Undefined where nothing is marked there: the call fails.
 */
function restore(marks: Map<number, number>, first: number, pages: number): Span[] | undefined {
  const restored: Span[] = [];
  for (let frame = first; frame < first + pages; ) {
    const order = marks.get(frame);
    if (order === undefined) return undefined;
    marks.delete(frame);
    restored.push([frame, 2 ** order]);
    const rest = first + pages - frame;
    let step = 1;
    while (frame % (step * 2) === 0 && step * 2 <= rest) step *= 2;
    frame += step;
  }
  return restored;
}

const pagesOf = (spans: readonly Span[]): number => spans.reduce((sum, [, pages]) => sum + pages, 0);
/** What a range comes to after preserve and restore: the restored spans, and the marks that are left. */
function handOver(first: number, pages: number, nodes: Nodes): { restored: Span[]; left: Span[] } {
  const marks = preserve(first, pages, nodes);
  const restored = restore(marks, first, pages);
  if (restored === undefined) throw new Error('the restore failed');
  return { restored, left: [...marks].map(([frame, order]) => [frame, 2 ** order]) };
}

describe('what kho_preserve_pages() split at a border of nodes and kho_restore_pages() takes back', () => {
  it('two pages with the border between them: the second is stepped over', () => {
    expect(handOver(0, 2, border(1))).toEqual({ restored: [[0, 1]], left: [[1, 1]] });
    // No natural block crosses: both are single pages anyway.
    expect(handOver(1, 2, border(2))).toEqual({
      restored: [
        [1, 1],
        [2, 1],
      ],
      left: [],
    });
  });

  it('a border in the middle of a block of 64 MiB: the second half is', () => {
    expect(handOver(2 ** 14, 2 ** 14, border(2 ** 14 + 2 ** 13))).toEqual({
      restored: [[2 ** 14, 2 ** 13]],
      left: [[2 ** 14 + 2 ** 13, 2 ** 13]],
    });
  });

  it('a border behind the first page of a block: all but that page is', () => {
    const { restored, left } = handOver(0, 2 ** 10, border(1));
    expect(restored).toEqual([[0, 1]]);
    expect(left).toEqual(Array.from({ length: 10 }, (_, order) => [2 ** order, 2 ** order]));
  });

  it('a border at a whole gibibyte: half of 2 GiB is, and nothing of what is smaller', () => {
    const gib = 2 ** 18;
    expect(handOver(0, 2 * gib, border(gib)).left).toEqual([[gib, gib]]);
    expect(handOver(gib, gib, border(gib)).left).toEqual([]);
    expect(handOver(gib - 512, 1024, border(gib)).left).toEqual([]);
  });

  it('a node that comes back at the end of a block is not noticed: one object over two nodes, and all of it comes back', () => {
    const nodes: Nodes = [
      [2, 1],
      [4, 0],
    ];
    expect([...preserve(0, 8, nodes)]).toEqual([[0, 3]]);
    expect(handOver(0, 8, nodes)).toEqual({ restored: [[0, 8]], left: [] });
  });

  it('a node that comes back inside a block: more comes back than lies before the first border', () => {
    const nodes: Nodes = [
      [1, 1],
      [3, 0],
      [7, 1],
    ];
    expect(handOver(0, 8, nodes)).toEqual({
      restored: [[0, 4]],
      left: [
        [4, 2],
        [6, 1],
        [7, 1],
      ],
    });
  });

  /** Ranges of few pages and of many, with stretches of up to three nodes before, in and behind them. */
  const ranges = fc.constantFrom(2 ** 4, 2 ** 14).chain((most) =>
    fc
      .record({
        first: fc.oneof(
          fc.nat(2 ** 20),
          fc.nat(2 ** 10).map((block) => block * most),
        ),
        pages: fc.integer({ min: 1, max: most }),
        stretches: fc.uniqueArray(fc.tuple(fc.nat(most + most / 2), fc.nat(2)), {
          maxLength: 6,
          selector: ([offset]) => offset,
        }),
      })
      .map(({ first, pages, stretches }) => {
        const nodes = stretches.map(([offset, nid]): [number, number] => [first - most / 4 + offset, nid]);
        return { first, pages, nodes: nodes.sort(([a], [b]) => a - b) };
      }),
  );
  /** The frames behind the block's first at which another node begins than that of the frame before. */
  const bordersIn = ([frame, size]: Span, nodes: Nodes): number[] =>
    nodes
      .map(([begin]) => begin)
      .filter((begin) => begin > frame && begin < frame + size && nodeOf(nodes, begin - 1) !== nodeOf(nodes, begin));
  const endsOnOneNode = ([frame, size]: Span, nodes: Nodes): boolean =>
    nodeOf(nodes, frame) === nodeOf(nodes, frame + size - 1);

  it("is all of it exactly when each natural block's first and last page are on one node", () => {
    let [whole, wholeOverBorders, short] = [0, 0, 0];
    fc.assert(
      fc.property(ranges, ({ first, pages, nodes }) => {
        const blocks = naturalBlocks(first, pages);
        const agrees = blocks.every((block) => endsOnOneNode(block, nodes));
        const { restored, left } = handOver(first, pages, nodes);
        expect(left.length === 0).toBe(agrees);
        expect(pagesOf(restored) + pagesOf(left)).toBe(pages);
        if (!agrees) short++;
        else if (blocks.some((block) => bordersIn(block, nodes).length > 0)) wholeOverBorders++;
        else whole++;
      }),
      { numRuns: 2000 },
    );
    // Each of the three was met, a node that comes back among them.
    expect(Math.min(whole, wholeOverBorders, short)).toBeGreaterThan(10);
  });

  it('is never refused: at each natural block something is marked, and of a block that is split just that comes back', () => {
    let [atOneBorder, atMore] = [0, 0];
    fc.assert(
      fc.property(ranges, ({ first, pages, nodes }) => {
        const { restored } = handOver(first, pages, nodes);
        const blocks = naturalBlocks(first, pages);
        expect(restored.map(([frame]) => frame)).toEqual(blocks.map(([frame]) => frame));
        for (const [index, block] of blocks.entries()) {
          const [frame, size] = block;
          const [, back] = restored[index];
          if (endsOnOneNode(block, nodes)) {
            expect(back).toBe(size);
            continue;
          }
          expect(back * 2).toBeLessThanOrEqual(size);
          const [border, ...more] = bordersIn(block, nodes);
          if (more.length > 0) {
            atMore++;
            continue;
          }
          // The largest object that ends at the one border or before.
          expect(back).toBeLessThanOrEqual(border - frame);
          expect(back * 2).toBeGreaterThan(border - frame);
          atOneBorder++;
        }
      }),
      { numRuns: 2000 },
    );
    expect(Math.min(atOneBorder, atMore)).toBeGreaterThan(10);
  });

  it('is nothing wrong where the restore knows of borders and the preserve did not: one object, one node', () => {
    const marks = preserve(0, 2 ** 14, []);
    expect(restore(marks, 0, 2 ** 14)).toEqual([[0, 2 ** 14]]);
    expect(marks.size).toBe(0);
  });
});
