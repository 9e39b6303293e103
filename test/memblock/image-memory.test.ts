import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { KhoError } from 'khorus';
import { afterAll, expect, test } from 'vitest';
import { physicalAddress as at, PAGE_SIZE } from '#dist/memblock/address.js';
import { ImageMemory } from '#dist/memblock/image-memory.js';
import { SharedPhysicalMemory } from '#dist/memblock/physical-memory.js';
import { writeImage } from '#dist/memblock/write-image.js';
import { temporaryDirectory } from '../support/run.js';
import { thrown } from './thrown.js';

const directory = mkdtempSync(join(tmpdir(), 'khorus-image-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
let files = 0;
const newFile = () => join(directory, `ram${files++}.img`);

const MIB = 2 ** 20;
const BLOCK = 2 ** 16;

/** 64 MiB on two nodes that touch at an odd page, a hole, and unbacked memory at the end. */
function host(): SharedPhysicalMemory {
  return SharedPhysicalMemory.create([
    { base: at(0), size: 33 * PAGE_SIZE, nid: 0, backed: true },
    { base: at(33 * PAGE_SIZE), size: 32 * MIB, nid: 1, backed: true },
    { base: at(48 * MIB), size: 16 * MIB, nid: 0, backed: true },
    { base: at(128 * MIB), size: 128 * MIB, nid: 1, backed: false },
  ]);
}

test('memory that the image has no bytes of cannot be read, whatever the file has there', () => {
  const file = join(temporaryDirectory(), 'ram.img');
  writeFileSync(file, Buffer.alloc(4 * 4096, 7));
  using memory = ImageMemory.open(file);
  memory.setUnbacked([
    { base: 4096, size: 4096 },
    { base: 3 * 4096, size: 2 * 4096 }, // beyond the end of the file
  ]);
  expect(memory.ranges.map(({ base, size, backed }) => [base / 4096, size / 4096, backed])).toEqual([
    [0, 1, true],
    [1, 1, false],
    [2, 1, true],
    [3, 2, false],
  ]);
  expect(memory.read(at(2 * 4096), 1)).toEqual(Uint8Array.of(7));
  for (const address of [4096, 8191, 3 * 4096, 4 * 4096]) {
    const error = thrown(() => memory.read(at(address), 1));
    expect([error.code, error.message]).toEqual(['KHO_EFAULT', expect.stringContaining('is unbacked')]);
  }
  expect(thrown(() => memory.read(at(0), 8192)).details.address).toBe(4096);
  expect(thrown(() => memory.setUnbacked([{ base: 0, size: -1 }])).code).toBe('KHO_EINVAL');
});

test('an image round trip keeps every byte of the ranges, and holes stay holes', async () => {
  const memory = host();
  const pages = [0, 7, 32, 33, 34, 300, 301, 12_288, 16_383];
  for (const page of pages) memory.fill(at(page * PAGE_SIZE + (page % 4000)), 64, (page % 255) + 1);
  // Not in `ranges`: what nobody allocated is a hole, whatever it holds.
  memory.fill(at(20 * MIB), PAGE_SIZE, 0xee);
  const file = newFile();
  await writeImage(memory, file, {
    ranges: [
      { base: at(100), size: 4 * MIB }, // unaligned, and over a border of nodes
      { base: at(48 * MIB), size: 16 * MIB },
    ],
  });
  const { size, blocks } = statSync(file);
  expect(size).toBe(256 * MIB);
  // Page granularity on this file system or 64 KiB on another: far below the 20 MiB of the ranges either way.
  expect(blocks * 512).toBeGreaterThanOrEqual(pages.length * PAGE_SIZE);
  expect(blocks * 512).toBeLessThanOrEqual(pages.length * BLOCK);
  const image = ImageMemory.open(file);
  for (const page of pages) {
    const address = at(page * PAGE_SIZE);
    expect(Buffer.from(image.read(address, PAGE_SIZE)).equals(memory.read(address, PAGE_SIZE)), `page ${page}`).toBe(
      true,
    );
  }
  expect(image.read(at(20 * MIB), PAGE_SIZE).every((byte) => byte === 0)).toBe(true);
  image.close();
});

test('writing an image refuses to replace a file, and to read what is not memory', async () => {
  const memory = host();
  const file = newFile();
  writeFileSync(file, 'mine');
  await expect(writeImage(memory, file, { ranges: [] })).rejects.toMatchObject({ code: 'KHO_EEXIST' });
  expect(readFileSync(file, 'utf8')).toBe('mine');
  const other = newFile();
  const ranges = [{ base: at(40 * MIB), size: PAGE_SIZE }];
  await expect(writeImage(memory, other, { ranges })).rejects.toMatchObject({
    code: 'KHO_EFAULT',
    details: { file: other },
  });
  expect(() => statSync(other)).toThrow('ENOENT');
  const nowhere = join(directory, 'no', 'ram.img');
  await expect(writeImage(memory, nowhere, { ranges: [] })).rejects.toMatchObject({ code: 'KHO_EIO' });
});

test('an aborted image is removed', async () => {
  const file = newFile();
  const controller = new AbortController();
  function* ranges() {
    yield { base: at(0), size: MIB };
    controller.abort(); // after the first range was written
    yield { base: at(MIB), size: MIB };
  }
  const written = writeImage(host(), file, { ranges: ranges(), signal: controller.signal });
  await expect(written).rejects.toMatchObject({ code: 'KHO_ECANCELED' });
  expect(() => statSync(file)).toThrow('ENOENT');
});

test('reads and private writes of an image agree with a flat array, and never reach the file', () => {
  const SIZE = 4 * BLOCK + 777;
  const original = Uint8Array.from({ length: SIZE }, (_, index) => (index * 31 + (index >> 8)) & 255);
  const file = newFile();
  writeFileSync(file, original);
  const border = fc.tuple(fc.nat(4), fc.integer({ min: -9, max: 9 })).map(([n, d]) => Math.max(0, n * BLOCK + d));
  const offset = fc.oneof(fc.nat(SIZE - 1), border);
  const step = fc.oneof(
    fc.record({ op: fc.constant('write' as const), offset, bytes: fc.uint8Array({ minLength: 1, maxLength: 30 }) }),
    fc.record({ op: fc.constant('fill' as const), offset, length: fc.nat(3 * BLOCK), byte: fc.nat(255) }),
    fc.record({ op: fc.constant('read' as const), offset, length: fc.nat(3 * BLOCK) }),
    fc.record({ op: fc.constant('view' as const), offset, length: fc.nat(3 * BLOCK) }),
  );
  fc.assert(
    // A cache of one block, so that blocks come and go all the time.
    fc.property(fc.array(step, { maxLength: 15 }), fc.constantFrom(1, 2 * BLOCK), (steps, cacheBytes) => {
      const image = ImageMemory.open(file, { cacheBytes });
      const flat = original.slice();
      for (const step of steps) {
        const address = at(step.offset);
        const inside = (length: number) => Math.min(length, SIZE - step.offset);
        if (step.op === 'write') {
          const bytes = step.bytes.subarray(0, inside(step.bytes.length));
          image.write(address, bytes);
          flat.set(bytes, step.offset);
        } else if (step.op === 'fill') {
          image.fill(address, inside(step.length), step.byte);
          flat.fill(step.byte, step.offset, step.offset + inside(step.length));
        } else {
          const bytes =
            step.op === 'read' ? image.read(address, inside(step.length)) : image.view(address, inside(step.length));
          expect(Buffer.from(bytes).equals(flat.subarray(step.offset, step.offset + inside(step.length)))).toBe(true);
        }
      }
      expect(Buffer.from(image.read(at(0), SIZE)).equals(flat)).toBe(true);
      image.close();
    }),
    { numRuns: 150 },
  );
  expect(readFileSync(file).equals(original)).toBe(true);
});

test('integers lie across blocks', () => {
  const file = newFile();
  writeFileSync(file, new Uint8Array(2 * BLOCK));
  const image = ImageMemory.open(file);
  image.writeU64(at(BLOCK - 3), 0x1122334455667788n);
  expect(image.readU64(at(BLOCK - 3))).toBe(0x1122334455667788n);
  expect(image.readU32(at(BLOCK - 3), 'big')).toBe(0x88776655);
  image.close();
});

test('the map is the whole file until the boot record tells another; both ends are KHO_EFAULT', () => {
  const file = newFile();
  writeFileSync(file, new Uint8Array(3 * PAGE_SIZE));
  const image = ImageMemory.open(file);
  expect(image.ranges).toEqual([{ base: 0, size: 3 * PAGE_SIZE, nid: 0, backed: true }]);
  expect(thrown(() => image.read(at(3 * PAGE_SIZE - 1), 2)).details.address).toBe(3 * PAGE_SIZE);
  image.setRanges([
    { base: at(0x800), size: 0x400, nid: 0, backed: true },
    { base: at(PAGE_SIZE), size: 4 * PAGE_SIZE, nid: 1, backed: true },
    { base: at(8 * PAGE_SIZE), size: PAGE_SIZE, nid: 1, backed: false },
  ]);
  expect(thrown(() => image.read(at(0), 8)).message).toContain('outside of memory');
  expect(image.read(at(0xbfc), 4)).toHaveLength(4);
  expect(thrown(() => image.read(at(0xbfc), 5)).details.address).toBe(0xc00);
  expect(thrown(() => image.fill(at(8 * PAGE_SIZE), 1, 0)).message).toContain('unbacked');
  const error = thrown(() => image.read(at(2 * PAGE_SIZE), 2 * PAGE_SIZE));
  expect([error.code, error.details.address]).toEqual(['KHO_EFAULT', 3 * PAGE_SIZE]);
  expect(error.message).toContain(`ends at 0x3000`);
  image.close();
});

test('an image that is missing, closed or cut short while it is read says so', () => {
  expect(thrown(() => ImageMemory.open(join(directory, 'none'))).code).toBe('KHO_ENOENT');
  expect(thrown(() => ImageMemory.open(directory).read(at(0), 1)).code).toBe('KHO_EINVAL');
  const file = newFile();
  writeFileSync(file, new Uint8Array(4 * BLOCK));
  const image = ImageMemory.open(file);
  truncateSync(file, BLOCK);
  expect(thrown(() => image.read(at(2 * BLOCK), 1))).toMatchObject({
    code: 'KHO_EIO',
    details: { file, offset: 2 * BLOCK },
  });
  image.close();
  image.close();
  expect(() => image.read(at(0), 1)).toThrow(KhoError);
  expect(thrown(() => image.write(at(0), new Uint8Array(1))).code).toBe('KHO_EINVAL');
});

test('the block that was used least recently is forgotten first', () => {
  const file = newFile();
  const blocks = (byte: number) => writeFileSync(file, new Uint8Array(4 * BLOCK).fill(byte));
  blocks(1);
  const image = ImageMemory.open(file, { cacheBytes: 2 * BLOCK });
  const read = (block: number) => image.read(at(block * BLOCK), 1)[0];
  for (const block of [0, 1, 0, 2]) expect(read(block)).toBe(1);
  // The file behind the image changes, which shows what is read again.
  blocks(2);
  expect(read(0)).toBe(1);
  expect(read(2)).toBe(1);
  expect(read(1)).toBe(2);
  image.close();
});

test('an image that is larger than a file can be here says so, and leaves no file', async ({ skip }) => {
  const file = newFile();
  const size = Number.MAX_SAFE_INTEGER;
  writeFileSync(file, '');
  let fits = true;
  try {
    truncateSync(file, size);
  } catch {
    fits = false;
  }
  rmSync(file);
  if (fits) skip('the file system of temporary files has room for a sparse file of 8 PiB');
  const layout = { size, offsetOf: (address: number) => address };
  const error = await writeImage(host(), file, { ranges: [], layout }).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: 'KHO_EIO', details: { file, size } });
  expect(`${error}`).toMatch(/sparse file of 9007199254740991 bytes, and the file system of .* set TMPDIR, or --out/);
  expect(() => statSync(file)).toThrow('ENOENT');
});
