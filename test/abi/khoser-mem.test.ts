import fc from 'fast-check';
import { KhoError } from 'khorus';
import { describe, expect, test } from 'vitest';
import { type KhoserBitmapBits, KhoserBound, walkKhoserMem, writeKhoserMem } from '#dist/abi/index.js';
import { type Folio, type PhysicalAddress, physicalAddress, SharedPhysicalMemory } from '#dist/memblock/index.js';
import { thrown } from '../memblock/thrown.js';

const PAGE = 4096;
const MIB = 2 ** 20;
/** Where the lists lie: 4 MiB that hold memory; all else is memory of which there are no bytes. */
const LIST = 0x2000_0000;
const HELD = 4 * MIB;
const END = 2 ** 36;

function memoryWithList(): SharedPhysicalMemory {
  return SharedPhysicalMemory.create([
    { base: physicalAddress(0), size: LIST, nid: 0, backed: false },
    { base: physicalAddress(LIST), size: HELD, nid: 0, backed: true },
    { base: physicalAddress(LIST + HELD), size: END - LIST - HELD, nid: 0, backed: false },
  ]);
}

const page = (number: number): PhysicalAddress => physicalAddress(LIST + number * PAGE);
const pages = (count: number): PhysicalAddress[] => Array.from({ length: count }, (_, number) => page(number));
const folio = (address: number, order: number): Folio => ({ address: physicalAddress(address), order });

/** Everything that is marked, and the pages of the list. */
function read(memory: SharedPhysicalMemory, first: PhysicalAddress, bits: KhoserBitmapBits) {
  const found: Folio[] = [];
  const list = walkKhoserMem(memory, first, bits, (address, order) => found.push({ address, order }));
  return { found, list };
}

const folios = fc
  .uniqueArray(
    fc
      .tuple(fc.nat({ max: 20 }), fc.nat({ max: END / PAGE - 1 }))
      .map(([order, frame]) => folio(Math.floor(frame / 2 ** order) * 2 ** order * PAGE, order)),
    { selector: ({ address, order }) => `${address}/${order}`, maxLength: 300 },
  )
  .map((all) => all.filter(({ address, order }) => address + 2 ** order * PAGE <= END));

describe.each([4096, 32768] as const)('with %i bits in a bitmap', (bits) => {
  test('a list gives back what was written, ascending by order and address, from the pages that it took', () => {
    const memory = memoryWithList();
    fc.assert(
      fc.property(folios, (given) => {
        const bound = new KhoserBound(bits);
        for (const one of given) bound.addFolio(one);
        const { first, pages: used } = writeKhoserMem(memory, given, pages(1024), bits);
        expect(used.length).toBe(bound.pages);
        expect(first).toBe(given.length === 0 ? undefined : page(0));
        if (first === undefined) return;
        const { found, list } = read(memory, first, bits);
        expect(found).toEqual([...given].sort((a, b) => a.order - b.order || a.address - b.address));
        expect([...list].sort()).toEqual([...used].sort());
      }),
      { numRuns: 100 },
    );
  });

  test('the bound of a range is enough for whatever is preserved in it', () => {
    const memory = memoryWithList();
    fc.assert(
      fc.property(fc.nat({ max: 200_000 }), fc.integer({ min: 1, max: 3000 }), folios, (start, count, given) => {
        const bound = new KhoserBound(bits);
        bound.addRange(physicalAddress(start * PAGE), count, 20);
        const inside = given.flatMap(({ address, order }) => {
          const at = start * PAGE + (address % (count * PAGE));
          const small = order % 4;
          const size = PAGE * 2 ** small;
          const aligned = Math.ceil(at / size) * size;
          return aligned + size <= (start + count) * PAGE ? [folio(aligned, small)] : [];
        });
        const { pages: used } = writeKhoserMem(memory, inside, pages(1024), bits);
        expect(used.length).toBeLessThanOrEqual(bound.pages);
      }),
      { numRuns: 100 },
    );
  });

  test('a chunk holds 255 bitmaps; the 256th begins another', () => {
    const memory = memoryWithList();
    const chunksOf = (count: number): number[] => {
      const given = Array.from({ length: count }, (_, index) => folio(index * bits * PAGE, 0));
      const { first = page(0), pages: used } = writeKhoserMem(memory, given, pages(1024), bits);
      expect(read(memory, first, bits).found).toEqual(given);
      const counts: number[] = [];
      for (let at: number = first; at !== 0; at = memory.readU64Number(physicalAddress(at))) {
        counts.push(memory.readU32(physicalAddress(at + 12)));
      }
      expect(used.length).toBe(counts.length + Math.ceil((count * bits) / 8 / PAGE));
      return counts;
    };
    expect([chunksOf(255), chunksOf(256)]).toEqual([[255], [255, 1]]);
  });

  test('one page too few is an error, and nothing is written', () => {
    const memory = memoryWithList();
    const given = [folio(0, 0), folio(0, 3), folio(0, 9)];
    const bound = new KhoserBound(bits);
    for (const one of given) bound.addFolio(one);
    const error = thrown(() => writeKhoserMem(memory, given, pages(bound.pages - 1), bits));
    expect(error).toMatchObject({ code: 'KHO_ENOMEM' });
    expect(memory.read(page(0), HELD).every((byte) => byte === 0)).toBe(true);
  });
});

// Number of the bitmap, and of the bit: as the kernel's xarray index and bit come out.
const VECTORS: [bits: KhoserBitmapBits, address: number, order: number, index: number, bit: number][] = [
  [4096, 0x1000000, 0, 1, 0],
  [32768, 0x1000000, 0, 0, 4096],
  [4096, 0x100000000, 0, 256, 0],
  [32768, 0x100000000, 0, 32, 0],
  [4096, 0x100400000, 10, 0, 1025],
  [32768, 0x100400000, 10, 0, 1025],
];
test.each(VECTORS)('%i bits: %i at order %i is bit %# of its bitmap', (bits, address, order, index, bit) => {
  const memory = memoryWithList();
  const { first = page(0) } = writeKhoserMem(memory, [folio(address, order)], pages(2), bits);
  expect([memory.readU32(physicalAddress(first + 8)), memory.readU32(physicalAddress(first + 12))]).toEqual([order, 1]);
  expect(memory.readU64Number(physicalAddress(first + 16))).toBe(index * bits * PAGE * 2 ** order);
  const bitmap = memory.read(physicalAddress(memory.readU64Number(physicalAddress(first + 24))), bits / 8);
  const set = [...bitmap].flatMap((byte, at) =>
    [0, 1, 2, 3, 4, 5, 6, 7].flatMap((i) => (byte & (1 << i) ? [at * 8 + i] : [])),
  );
  expect(set).toEqual([bit]);
});

describe('a list that is damaged', () => {
  /** Orders 0 and 3: two chunks and one page of bitmaps. */
  const SOUND = [folio(0, 0), folio(0x3000, 0), folio(0x1000000, 0), folio(0x8000, 3)];
  const at = (address: number): PhysicalAddress => physicalAddress(address);
  const DAMAGE: [string, (memory: SharedPhysicalMemory) => void, RegExp][] = [
    ['leads back to its first chunk', (m) => m.writeU64(at(page(1)), page(0)), /next of .* met before, as a chunk/],
    ['leads to itself', (m) => m.writeU64(at(page(0)), page(0)), /met before, as a chunk/],
    ['leads into a page of bitmaps', (m) => m.writeU64(at(page(1)), page(2)), /met before, as a page of bitmaps/],
    ['leads into the middle of a page', (m) => m.writeU64(at(page(0)), page(1) + 8), /not the address of a page/],
    ['leads above the address space', (m) => m.writeU64(at(page(0)), 2n ** 60n), /not the address of a page/],
    ['leads to memory that is not held', (m) => m.writeU64(at(page(1)), LIST - PAGE), /cannot be read/],
    ['has 256 elements', (m) => m.writeU32(at(page(0) + 12), 256), /256 elements, more than 255/],
    ['has an order of nothing', (m) => m.writeU32(at(page(0) + 8), 41), /of order 41, above 40/],
    ['begins a bitmap between two', (m) => m.writeU64(at(page(0) + 16), PAGE), /where no bitmap of order 0 begins/],
    ['has a bitmap twice', (m) => m.writeU64(at(page(0) + 40), page(2)), /met before, as a bitmap/],
    ['has a place twice', (m) => m.writeU64(at(page(0) + 32), 0), /is the second one of order 0/],
    ['has a bitmap at no address', (m) => m.writeU64(at(page(0) + 24), 0), /not the address of a bitmap/],
    [
      'has a bitmap that is not aligned',
      (m) => m.writeU64(at(page(0) + 24), page(2) + 8),
      /not the address of a bitmap/,
    ],
    ['has a bitmap in a chunk', (m) => m.writeU64(at(page(0) + 24), page(0) + 512), /met before, as a chunk/],
    ['marks what is no memory', (m) => m.writeU64(at(page(1) + 16), 4096 * PAGE * 8 * 600), /not inside memory/],
  ];

  test.each(DAMAGE)('%s', (_what, damage, message) => {
    const memory = memoryWithList();
    const { first = page(0) } = writeKhoserMem(memory, SOUND, pages(3), 4096);
    expect(read(memory, first, 4096).found).toHaveLength(4);
    damage(memory);
    const error = thrown(() => read(memory, first, 4096));
    expect(error).toMatchObject({ code: 'KHO_ETRACKER', message: expect.stringMatching(message) });
    const problems: KhoError[] = [];
    const found: Folio[] = [];
    walkKhoserMem(memory, first, 4096, (address, order) => found.push({ address, order }), {
      onDamage: (problem) => problems.push(problem),
    });
    expect(problems).toHaveLength(1);
    for (const one of found) expect(SOUND).toContainEqual(one);
  });

  test('by any one byte ends the walk, with a KHO_ETRACKER or with other folios', () => {
    fc.assert(
      fc.property(fc.nat({ max: 3 * PAGE - 1 }), fc.nat({ max: 255 }), (offset, byte) => {
        const memory = memoryWithList();
        const { first = page(0) } = writeKhoserMem(memory, SOUND, pages(3), 4096);
        memory.fill(at(LIST + offset), 1, byte);
        try {
          read(memory, first, 4096);
        } catch (error) {
          expect(error).toBeInstanceOf(KhoError);
          expect(error).toMatchObject({ code: 'KHO_ETRACKER' });
        }
      }),
      { numRuns: 300 },
    );
  });
});
