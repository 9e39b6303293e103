import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type FileShape, layOutFile } from '#dist/drivers/memfd-layout.js';

const PAGE = 4096;
const MAX_PAGES = 200;

const shape: fc.Arbitrary<FileShape> = fc.record({
  size: fc.nat(MAX_PAGES * PAGE),
  order: fc.nat(9),
  holes: fc.oneof(
    fc.nat(6),
    fc.array(
      fc.record({
        at: fc.nat(MAX_PAGES).map((page) => page * PAGE),
        size: fc.integer({ min: 1, max: 40 }).map((pages) => pages * PAGE),
      }),
      { maxLength: 5 },
    ),
  ),
});

/** Page by page, by the definition of the option. */
function isHole({ order, holes }: FileShape, page: number): boolean {
  if (typeof holes === 'number') return holes > 0 && Math.floor(page / 2 ** order) % holes === holes - 1;
  return holes.some(({ at, size }) => page * PAGE >= at && page * PAGE < at + size);
}

describe('the layout of a file', () => {
  it('covers every page but those of holes once, in ascending order', () => {
    fc.assert(
      fc.property(shape, (wanted) => {
        const covered = layOutFile(wanted).flatMap(({ index, order }) =>
          Array.from({ length: 2 ** order }, (_, page) => index + page),
        );
        const pages = Array.from({ length: Math.ceil(wanted.size / PAGE) }, (_, page) => page);
        expect(covered).toEqual(pages.filter((page) => !isHole(wanted, page)));
      }),
    );
  });

  it('has aligned folios, each as large as it can be', () => {
    fc.assert(
      fc.property(shape, (wanted) => {
        const pages = Math.ceil(wanted.size / PAGE);
        for (const { index, order } of layOutFile(wanted)) {
          expect(index % 2 ** order).toBe(0);
          expect(order).toBeLessThanOrEqual(wanted.order);
          const larger = Array.from({ length: 2 ** (order + 1) }, (_, page) => index + page);
          const fits = index % 2 ** (order + 1) === 0 && order < wanted.order;
          expect(fits && larger.every((page) => page < pages && !isHole(wanted, page))).toBe(false);
        }
      }),
    );
  });
});
