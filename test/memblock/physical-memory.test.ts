import fc from 'fast-check';
import { expect, test } from 'vitest';
import { physicalAddress as at, PAGE_SIZE } from '#dist/memblock/address.js';
import { SEGMENT_SIZE, SharedPhysicalMemory } from '#dist/memblock/physical-memory.js';
import { thrown } from './thrown.js';

/** Three segments that touch: the first two are one range cut at 1 GiB, the third is on another node. */
const BASE = SEGMENT_SIZE - PAGE_SIZE;
const SIZE = 3 * PAGE_SIZE;
function threeSegments(): SharedPhysicalMemory {
  return SharedPhysicalMemory.create([
    { base: at(BASE + 2 * PAGE_SIZE), size: PAGE_SIZE, nid: 1, backed: true },
    { base: at(BASE), size: 2 * PAGE_SIZE, nid: 0, backed: true },
    { base: at(2 ** 40), size: 2 ** 41, nid: 1, backed: false },
  ]);
}

test('reads, writes and fills over the borders of segments agree with one flat array', () => {
  // Offsets cluster around the two borders, where the mistakes are.
  const offset = fc.oneof(
    fc.nat(SIZE - 1),
    fc.integer({ min: -12, max: 12 }).map((d) => PAGE_SIZE + d),
    fc.integer({ min: -12, max: 12 }).map((d) => 2 * PAGE_SIZE + d),
  );
  const order = fc.constantFrom('little' as const, 'big' as const);
  const step = fc.oneof(
    fc.record({ op: fc.constant('write' as const), offset, bytes: fc.uint8Array({ maxLength: 40 }) }),
    fc.record({
      op: fc.constant('write' as const),
      offset,
      bytes: fc.nat(2 * PAGE_SIZE).map((n) => new Uint8Array(n).fill(n)),
    }),
    fc.record({ op: fc.constant('fill' as const), offset, length: fc.nat(SIZE), byte: fc.nat(255) }),
    fc.record({ op: fc.constant('u32' as const), offset, order, value: fc.nat(0xffffffff) }),
    fc.record({ op: fc.constant('u64' as const), offset, order, value: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), offset, fc.nat(SIZE), (steps, from, wanted) => {
      const memory = threeSegments();
      const flat = new Uint8Array(SIZE);
      const view = new DataView(flat.buffer);
      const inside = (start: number, length: number) => Math.min(length, SIZE - start);
      for (const step of steps) {
        const address = at(BASE + step.offset);
        if (step.op === 'write') {
          const bytes = step.bytes.subarray(0, inside(step.offset, step.bytes.length));
          memory.write(address, bytes);
          flat.set(bytes, step.offset);
        } else if (step.op === 'fill') {
          const length = inside(step.offset, step.length);
          memory.fill(address, length, step.byte);
          flat.fill(step.byte, step.offset, step.offset + length);
        } else if (step.op === 'u32' && step.offset + 4 <= SIZE) {
          memory.writeU32(address, step.value, step.order);
          view.setUint32(step.offset, step.value, step.order === 'little');
          expect(memory.readU32(address, step.order)).toBe(step.value);
        } else if (step.op === 'u64' && step.offset + 8 <= SIZE) {
          memory.writeU64(address, step.value, step.order);
          view.setBigUint64(step.offset, step.value, step.order === 'little');
          expect(memory.readU64(address, step.order)).toBe(step.value);
        }
      }
      const length = inside(from, wanted);
      expect(Buffer.from(memory.read(at(BASE + from), length)).equals(flat.subarray(from, from + length))).toBe(true);
      const target = new Uint8Array(SIZE);
      memory.readInto(at(BASE), target);
      expect(Buffer.from(target).equals(flat)).toBe(true);
    }),
    { numRuns: 300 },
  );
});

test('integers are little-endian unless told otherwise', () => {
  const memory = threeSegments();
  memory.writeU64(at(BASE), 0x0102030405060708n);
  expect([...memory.read(at(BASE), 8)]).toEqual([8, 7, 6, 5, 4, 3, 2, 1]);
  expect(memory.readU32(at(BASE))).toBe(0x05060708);
  expect(memory.readU32(at(BASE), 'big')).toBe(0x08070605);
});

test('a 64-bit word is read as a number only if that is exact', () => {
  const memory = threeSegments();
  memory.writeU64(at(BASE), 2 ** 53 - 1);
  expect(memory.readU64Number(at(BASE))).toBe(2 ** 53 - 1);
  memory.writeU64(at(BASE), 0x12_3456_7890n, 'big');
  expect(memory.readU64Number(at(BASE), 'big')).toBe(0x12_3456_7890);
  memory.writeU64(at(BASE), 2n ** 53n);
  const error = thrown(() => memory.readU64Number(at(BASE)));
  expect([error.code, error.details.address]).toEqual(['KHO_EINVAL', BASE]);
  expect(error.message).toContain('0x20000000000000');
});

test.each([-1, 1.5, 2 ** 53, -1n, 2n ** 64n])('writing %s as 64 bits is KHO_EINVAL', (value) => {
  expect(thrown(() => threeSegments().writeU64(at(BASE), value)).code).toBe('KHO_EINVAL');
});

test('an access outside of memory is KHO_EFAULT at its first bad byte and changes nothing', () => {
  const memory = threeSegments();
  const end = BASE + SIZE;
  const error = thrown(() => memory.write(at(end - 2), new Uint8Array([1, 2, 3])));
  expect([error.code, error.details.address]).toEqual(['KHO_EFAULT', end]);
  expect(error.message).toContain('outside of memory');
  expect([...memory.read(at(end - 2), 2)]).toEqual([0, 0]);
  expect(thrown(() => memory.fill(at(end - 2), 3, 1)).code).toBe('KHO_EFAULT');
  expect([...memory.read(at(end - 2), 2)]).toEqual([0, 0]);
  expect(thrown(() => memory.read(at(BASE - 1), 2)).details.address).toBe(BASE - 1);
  expect(thrown(() => memory.view(at(end - 1), 2)).code).toBe('KHO_EFAULT');
});

test('an access to unbacked memory is KHO_EFAULT and says so', () => {
  const error = thrown(() => threeSegments().readU64(at(2 ** 40 + 8)));
  expect([error.code, error.details.address]).toEqual(['KHO_EFAULT', 2 ** 40 + 8]);
  expect(error.message).toContain('unbacked');
});

test('a length that no memory has fails before anything is allocated for it', () => {
  const memory = threeSegments();
  expect(thrown(() => memory.read(at(BASE), 2 ** 45)).code).toBe('KHO_EFAULT');
  expect(thrown(() => memory.read(at(BASE), -1)).code).toBe('KHO_EINVAL');
  expect(thrown(() => memory.read(at(BASE), 0.5)).code).toBe('KHO_EINVAL');
});

test('a view is the memory itself, and exists inside one segment only', () => {
  const memory = threeSegments();
  const view = memory.view(at(BASE + PAGE_SIZE), PAGE_SIZE);
  memory.writeU32(at(BASE + PAGE_SIZE), 7);
  expect(view[0]).toBe(7);
  view[1] = 1;
  expect(memory.readU32(at(BASE + PAGE_SIZE))).toBe(0x107);
  const error = thrown(() => memory.view(at(BASE), PAGE_SIZE + 1));
  expect(error.code).toBe('KHO_EINVAL');
  expect(error.message).toContain('two segments');
  expect(memory.views(at(BASE + 1), SIZE - 2).map((part) => part.length)).toEqual([
    PAGE_SIZE - 1,
    PAGE_SIZE,
    PAGE_SIZE - 1,
  ]);
});

test('words() gives the word of an aligned address', () => {
  const memory = threeSegments();
  const { array, index } = memory.words(at(BASE + 2 * PAGE_SIZE + 8));
  Atomics.store(array, index, 0x01020304);
  expect(memory.readU32(at(BASE + 2 * PAGE_SIZE + 8))).toBe(0x01020304);
  expect(thrown(() => memory.words(at(BASE + 2))).code).toBe('KHO_EINVAL');
  expect(thrown(() => memory.words(at(0))).code).toBe('KHO_EFAULT');
});

test('longs() gives the 64-bit word of an aligned address, up to the last one of a segment', () => {
  const memory = threeSegments();
  for (const address of [BASE, BASE + 2 * PAGE_SIZE - 8, BASE + 2 * PAGE_SIZE].map(at)) {
    const { array, index } = memory.longs(address);
    expect(Atomics.compareExchange(array, index, 0n, 0x0102030405060708n)).toBe(0n);
    expect(memory.readU64(address)).toBe(0x0102030405060708n);
  }
  expect(thrown(() => memory.longs(at(BASE + 4))).code).toBe('KHO_EINVAL');
  expect(thrown(() => memory.longs(at(0))).code).toBe('KHO_EFAULT');
  expect(thrown(() => memory.longs(at(2 ** 40))).code).toBe('KHO_EFAULT');
});

test('memory that is attached through its handle is the same memory with the same map', () => {
  const memory = threeSegments();
  const other = SharedPhysicalMemory.attach(structuredClone(memory.handle));
  other.writeU32(at(BASE + SIZE - 4), 42);
  expect(memory.readU32(at(BASE + SIZE - 4))).toBe(42);
  expect(other.ranges).toEqual(memory.ranges);
  expect(memory.ranges).toEqual([
    { base: BASE, size: 2 * PAGE_SIZE, nid: 0, backed: true },
    { base: BASE + 2 * PAGE_SIZE, size: PAGE_SIZE, nid: 1, backed: true },
    { base: 2 ** 40, size: 2 ** 41, nid: 1, backed: false },
  ]);
});

test('segments end at multiples of 1 GiB, so that no aligned object is cut', () => {
  const base = at(SEGMENT_SIZE / 2);
  const memory = SharedPhysicalMemory.create([{ base, size: 2 * SEGMENT_SIZE, nid: 0, backed: true }]);
  expect(memory.handle.segments.map((segment) => segment.base)).toEqual([base, SEGMENT_SIZE, 2 * SEGMENT_SIZE]);
  expect(memory.ranges).toHaveLength(1);
});

test.each([
  ['an unaligned base', [{ base: at(1), size: PAGE_SIZE, nid: 0, backed: true }]],
  ['an unaligned size', [{ base: at(0), size: 100, nid: 0, backed: true }]],
  ['an empty range', [{ base: at(0), size: 0, nid: 0, backed: true }]],
  ['a negative node', [{ base: at(0), size: PAGE_SIZE, nid: -1, backed: true }]],
  ['memory above 2^52', [{ base: at(2 ** 52 - PAGE_SIZE), size: 2 * PAGE_SIZE, nid: 0, backed: false }]],
  [
    'ranges that overlap',
    [
      { base: at(0), size: 2 * PAGE_SIZE, nid: 0, backed: true },
      { base: at(PAGE_SIZE), size: PAGE_SIZE, nid: 1, backed: true },
    ],
  ],
])('a memory map with %s is KHO_EINVAL', (_, ranges) => {
  expect(thrown(() => SharedPhysicalMemory.create(ranges)).code).toBe('KHO_EINVAL');
});

test('memory of any size takes nothing until it is used; other threads see what was used before they attached', () => {
  const GIB = 2 ** 30;
  const TIB = 2 ** 40;
  const memory = SharedPhysicalMemory.create([
    { base: at(0), size: 32 * TIB, nid: 0, backed: true },
    { base: at(64 * TIB - GIB), size: GIB, nid: 1, backed: true },
    { base: at(64 * TIB), size: 64 * TIB, nid: 1, backed: false },
  ]);
  const inUse = () => memory.handle.segments.filter(({ buffer }) => buffer !== null).map(({ base }) => base);
  expect(inUse()).toEqual([]);
  const last = at(64 * TIB - 8);
  memory.writeU64(last, 42n);
  memory.write(at(3 * GIB - 2), Uint8Array.of(1, 2, 3, 4)); // over a border
  expect(inUse()).toEqual([2 * GIB, 3 * GIB, 64 * TIB - GIB]);
  const other = SharedPhysicalMemory.attach(structuredClone(memory.handle));
  expect(other.ranges).toEqual(memory.ranges);
  expect(other.readU64(last)).toBe(42n);
  other.writeU64(last, 43n);
  expect(memory.readU64(last)).toBe(43n);
  expect(other.read(at(3 * GIB - 2), 4)).toEqual(Uint8Array.of(1, 2, 3, 4));
  // What nobody had used reads as zeros there, and cannot be written: none of a write that reaches into it is done.
  expect(other.read(at(5 * GIB), 4)).toEqual(new Uint8Array(4));
  const error = thrown(() => other.write(at(4 * GIB - 8), new Uint8Array(16).fill(9)));
  expect([error.code, error.message]).toEqual(['KHO_EFAULT', expect.stringContaining('was not in use')]);
  expect(thrown(() => other.fill(at(5 * GIB), 4, 1)).code).toBe('KHO_EFAULT');
  expect(thrown(() => other.words(at(5 * GIB))).code).toBe('KHO_EFAULT');
  expect(memory.readU64(at(4 * GIB - 8))).toBe(0n);
  expect(thrown(() => memory.read(at(64 * TIB), 1)).code).toBe('KHO_EFAULT');
});
