import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { khoserBitmapBits, walkKhoserMem, writeKhoserMem } from '#dist/abi/index.js';
import { type Folio, type PhysicalAddress, physicalAddress, SharedPhysicalMemory } from '#dist/memblock/index.js';

const PAGE = 4096;
const MIB = 2 ** 20;
const LIST = 0x2000_0000;
const END = 2 ** 36;

function memoryWithList(): SharedPhysicalMemory {
  return SharedPhysicalMemory.create([
    { base: physicalAddress(0), size: LIST, nid: 0, backed: false },
    { base: physicalAddress(LIST), size: 4 * MIB, nid: 0, backed: true },
    { base: physicalAddress(LIST + 4 * MIB), size: END - LIST - 4 * MIB, nid: 0, backed: false },
  ]);
}

const at = physicalAddress;
const page = (number: number): PhysicalAddress => at(LIST + number * PAGE);
const PAGES = Array.from({ length: 1024 }, (_, number) => page(number));
const folio = (address: number, order: number): Folio => ({ address: at(address), order });
const folios = fc.uniqueArray(
  fc
    .tuple(fc.nat({ max: 12 }), fc.nat({ max: END / PAGE - 1 }))
    .map(([order, frame]) => folio(Math.floor(frame / 2 ** order) * 2 ** order * PAGE, order)),
  { selector: ({ address, order }) => `${address}/${order}`, minLength: 1, maxLength: 60 },
);
/** What a walk finds, which passes over damage. */
function found(memory: SharedPhysicalMemory, bits: 4096 | 32768): Folio[] {
  const all: Folio[] = [];
  walkKhoserMem(memory, page(0), bits, (address, order) => all.push({ address, order }), { onDamage: () => {} });
  return all;
}

test('a list of large bitmaps is never taken for one of small ones', () => {
  fc.assert(
    fc.property(folios, (given) => {
      const memory = memoryWithList();
      writeKhoserMem(memory, given, PAGES, 32768);
      expect(khoserBitmapBits(memory, page(0))).toBe(32768);
    }),
    { numRuns: 100 },
  );
});

test('a list of small bitmaps is told by the second one at the latest, and one alone reads the same in both forms', () => {
  fc.assert(
    fc.property(folios, (given) => {
      const memory = memoryWithList();
      const bitmaps = new Set(
        given.map(({ address, order }) => `${order}/${Math.floor(address / 2 ** order / 16 / MIB)}`),
      );
      writeKhoserMem(memory, given, PAGES, 4096);
      const told = khoserBitmapBits(memory, page(0));
      if (bitmaps.size > 1) expect(told).toBe(4096);
      if (told === 32768) expect(found(memory, 32768)).toEqual(found(memory, 4096));
    }),
    { numRuns: 100 },
  );
});

describe('one element, where Linux 6.16 might have put it', () => {
  const CASES: [string, start: number, bitmap: number, order: number, bits: 4096 | 32768][] = [
    ['at the start of a window of 128 MiB, its bitmap at the start of a page', 128 * MIB, page(1), 0, 32768],
    ['its bitmap in the middle of a page', 128 * MIB, page(1) + 512, 0, 4096],
    ['16 MiB behind the start of a window', 144 * MIB, page(1), 0, 4096],
    ['of order 3: 128 MiB behind the start of a window of 1 GiB', 1152 * MIB, page(1), 3, 4096],
    ['of order 3: at the start of a window of 1 GiB', 1024 * MIB, page(1), 3, 32768],
    ['damaged: its bitmap at no address that one could have', 128 * MIB, page(1) + 8, 0, 32768],
    ['damaged: its memory begins at no window of either size', 8 * MIB, page(1), 0, 32768],
  ];
  test.each(CASES)('%s', (_what, start, bitmap, order, bits) => {
    const memory = memoryWithList();
    memory.writeU32(at(page(0) + 8), order);
    memory.writeU32(at(page(0) + 12), 1);
    memory.writeU64(at(page(0) + 16), start);
    memory.writeU64(at(page(0) + 24), bitmap);
    expect(khoserBitmapBits(memory, page(0))).toBe(bits);
  });
});

test('a small list read as large, or a large one as small, finds other objects: neither says so', () => {
  const memory = memoryWithList();
  // A page behind the first 16 MiB of a window: the vectors of both forms.
  writeKhoserMem(memory, [folio(0, 0), folio(16 * MIB, 0)], PAGES, 32768);
  expect(found(memory, 32768)).toEqual([folio(0, 0), folio(16 * MIB, 0)]);
  expect(found(memory, 4096)).toEqual([folio(0, 0)]);
  writeKhoserMem(memory, [folio(0, 0), folio(16 * MIB, 0)], PAGES, 4096);
  expect(found(memory, 4096)).toEqual([folio(0, 0), folio(16 * MIB, 0)]);
  // The second bitmap lies behind the first one in its page: the page has it all.
  expect(found(memory, 32768)[1]).toEqual(folio(16 * MIB, 0));
});

test('however a list is damaged, telling its form ends, with one of the two', () => {
  fc.assert(
    fc.property(
      folios,
      fc.constantFrom(4096, 32768),
      fc.nat({ max: 8 * PAGE - 8 }),
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      (given, bits, where, word) => {
        const memory = memoryWithList();
        writeKhoserMem(memory, given, PAGES, bits as 4096 | 32768);
        memory.writeU64(at(LIST + (where & ~7)), word);
        expect([4096, 32768]).toContain(khoserBitmapBits(memory, page(0)));
      },
    ),
    { numRuns: 200 },
  );
  const memory = memoryWithList();
  memory.writeU64(page(0), page(1));
  memory.writeU64(page(1), page(0));
  expect(khoserBitmapBits(memory, page(0))).toBe(32768);
  memory.writeU64(page(1), 2n ** 63n);
  expect(khoserBitmapBits(memory, page(0))).toBe(32768);
  memory.writeU64(page(1), 0x1000);
  expect(khoserBitmapBits(memory, page(0))).toBe(32768);
});

test('the bytes of a list are those that the kernel would put there, word for word', () => {
  for (const bits of [4096, 32768] as const) {
    const memory = memoryWithList();
    const given = [
      folio(0x100400000, 10),
      folio(0x1000000, 0),
      folio(0x100000000, 0),
      folio(0x1001000, 0),
      folio(0, 0),
    ];
    const { pages } = writeKhoserMem(memory, given, PAGES, bits);
    const words = (address: number, count: number) =>
      Array.from({ length: count }, (_, index) => memory.readU64Number(at(address + index * 8)));
    const size = bits / 8;
    const bitmap = (number: number) => page(2) + number * size;
    const small = bits === 4096;
    // struct khoser_mem_chunk: next, order | num_elms << 32, then phys_start and bitmap of each element.
    const starts = small ? [0, 0x1000000, 0x100000000] : [0, 0x100000000];
    const elements = starts.flatMap((start, index) => [start, bitmap(index)]);
    expect(words(page(0), 2 + elements.length + 1)).toEqual([page(1), starts.length * 2 ** 32, ...elements, 0]);
    expect(words(page(1), 5)).toEqual([0, 10 + 2 ** 32, 0, bitmap(starts.length), 0]);
    // Bits, lowest first: of bitmap number and bit, as pfn >> order divided by the bits of a bitmap.
    const set: [bitmap: number, bit: number][] = small
      ? [
          [0, 0],
          [1, 0],
          [1, 1],
          [2, 0],
          [3, 1025],
        ]
      : [
          [0, 0],
          [0, 4096],
          [0, 4097],
          [1, 0],
          [2, 1025],
        ];
    const expected = new Uint8Array((pages.length - 2) * PAGE);
    for (const [number, bit] of set) {
      const byte = number * size + (bit >> 3);
      expected[byte] = (expected[byte] ?? 0) | (1 << (bit & 7));
    }
    expect(memory.read(page(2), expected.length)).toEqual(expected);
  }
});
