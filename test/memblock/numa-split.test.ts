/**
 * kho_preserve_pages() against kho_restore_pages() of Linux 7.2, where a range crosses a border of nodes
 * (docs/numa-split.md). The restore is a model here; test/kernel/numa-split.test.ts asks the kernel.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PAGE_SIZE, physicalAddress } from '#dist/memblock/address.js';
import { naturalOrders } from '#dist/memblock/page-range.js';

/** Frame numbers at which another node begins, ascending. */
type Borders = readonly number[];
type Span = [first: number, pages: number];

/** What is marked of a range: the order of each object by its first frame. */
function preserve(first: number, pages: number, borders: Borders): Map<number, number> {
  const node = (frame: number): number => borders.filter((border) => border <= frame).length;
  const folios = naturalOrders(physicalAddress(first * PAGE_SIZE), pages, (a, b) => node(a) === node(b));
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
function handOver(first: number, pages: number, borders: Borders): { restored: Span[]; left: Span[] } {
  const marks = preserve(first, pages, borders);
  const restored = restore(marks, first, pages);
  if (restored === undefined) throw new Error('the restore failed');
  return { restored, left: [...marks].map(([frame, order]) => [frame, 2 ** order]) };
}

describe('what kho_preserve_pages() split at a border of nodes and kho_restore_pages() takes back', () => {
  it('two pages with the border between them: the second is stepped over', () => {
    expect(handOver(0, 2, [1])).toEqual({ restored: [[0, 1]], left: [[1, 1]] });
    // No natural block crosses: both are single pages anyway.
    expect(handOver(1, 2, [2])).toEqual({
      restored: [
        [1, 1],
        [2, 1],
      ],
      left: [],
    });
  });

  it('a border in the middle of a block of 64 MiB: the second half is', () => {
    expect(handOver(2 ** 14, 2 ** 14, [2 ** 14 + 2 ** 13])).toEqual({
      restored: [[2 ** 14, 2 ** 13]],
      left: [[2 ** 14 + 2 ** 13, 2 ** 13]],
    });
  });

  it('a border behind the first page of a block: all but that page is', () => {
    const { restored, left } = handOver(0, 2 ** 10, [1]);
    expect(restored).toEqual([[0, 1]]);
    expect(left).toEqual(Array.from({ length: 10 }, (_, order) => [2 ** order, 2 ** order]));
  });

  it('a border at a whole gibibyte: half of 2 GiB is, and nothing of what is smaller', () => {
    const gib = 2 ** 18;
    expect(handOver(0, 2 * gib, [gib]).left).toEqual([[gib, gib]]);
    expect(handOver(gib, gib, [gib]).left).toEqual([]);
    expect(handOver(gib - 512, 1024, [gib]).left).toEqual([]);
  });

  const ranges = fc.record({
    first: fc.nat(2 ** 20),
    pages: fc.integer({ min: 1, max: 2 ** 14 }),
    offsets: fc.uniqueArray(fc.nat(2 ** 15), { maxLength: 4 }),
  });
  const bordersOf = ({ first, offsets }: { first: number; offsets: number[] }): number[] =>
    offsets.map((offset) => first - 2 ** 14 + offset).sort((a, b) => a - b);

  it('is all of it exactly when no border lies inside one of its natural blocks', () => {
    let [whole, short] = [0, 0];
    fc.assert(
      fc.property(ranges, (range) => {
        const { first, pages } = range;
        const borders = bordersOf(range);
        const crossed = naturalBlocks(first, pages).some(([frame, size]) =>
          borders.some((border) => border > frame && border < frame + size),
        );
        const { restored, left } = handOver(first, pages, borders);
        expect(left.length > 0).toBe(crossed);
        expect(pagesOf(restored) + pagesOf(left)).toBe(pages);
        if (crossed) short++;
        else whole++;
      }),
    );
    expect(Math.min(whole, short)).toBeGreaterThan(10);
  });

  it('is never refused: at each natural block something is marked, and of a block that is crossed just that comes back', () => {
    fc.assert(
      fc.property(ranges, (range) => {
        const { first, pages } = range;
        const borders = bordersOf(range);
        const { restored } = handOver(first, pages, borders);
        const blocks = naturalBlocks(first, pages);
        expect(restored.map(([frame]) => frame)).toEqual(blocks.map(([frame]) => frame));
        for (const [index, [frame, size]] of blocks.entries()) {
          const border = borders.find((border) => border > frame && border < frame + size);
          const [, back] = restored[index];
          if (border === undefined) {
            expect(back).toBe(size);
            continue;
          }
          // The largest object that ends at the border or before: at most half of the block.
          expect(back).toBeLessThanOrEqual(border - frame);
          expect(back * 2).toBeGreaterThan(border - frame);
          expect(back * 2).toBeLessThanOrEqual(size);
        }
      }),
    );
  });

  it('is nothing wrong where the restore knows of borders and the preserve did not: one object, one node', () => {
    const marks = preserve(0, 2 ** 14, []);
    expect(restore(marks, 0, 2 ** 14)).toEqual([[0, 2 ** 14]]);
    expect(marks.size).toBe(0);
  });
});
