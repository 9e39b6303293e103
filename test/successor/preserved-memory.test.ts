import { expect, test } from 'vitest';
import { FolioIndex, physicalAddress } from '#dist/memblock/index.js';
import { PreservedMemory } from '#dist/successor/preserved-memory.js';
import { thrown } from '../memblock/thrown.js';

const at = (page: number) => physicalAddress(page * 4096);
/** Of order 1 and 0, side by side, and order 2 after a gap. */
const preserved = () =>
  new PreservedMemory(
    FolioIndex.of([
      { address: at(2), order: 1 },
      { address: at(4), order: 0 },
      { address: at(8), order: 2 },
    ]),
  );

test('an object is settled by its first address alone, which tells its order', () => {
  const memory = preserved();
  expect(memory.settleAt(at(8), 'claimed')).toEqual({ address: at(8), order: 2 });
  expect(memory.settleAt(at(2), 'discarded')).toEqual({ address: at(2), order: 1 });
  expect([...memory.unclaimed()]).toEqual([{ address: at(4), order: 0 }]);
});

test('an object is settled once', () => {
  const memory = preserved();
  memory.settleAt(at(2), 'claimed');
  expect(thrown(() => memory.settleAt(at(2), 'claimed'))).toMatchObject({
    code: 'KHO_EBUSY',
    message: 'the memory at 0x2000 was claimed before',
  });
});

test.each([1, 3, 5, 9, 12])('page %i, at which no object begins, is KHO_ENOENT', (page) => {
  expect(thrown(() => preserved().settleAt(at(page), 'claimed'))).toMatchObject({
    code: 'KHO_ENOENT',
    details: { address: at(page) },
  });
});
