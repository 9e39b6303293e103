import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { KhoError } from 'khorus';
import { afterAll, expect, test } from 'vitest';
import { physicalAddress as at, ImageMemory, SharedPhysicalMemory, writeElfCore } from '#dist/memblock/index.js';
import { elfCore, filled, type TestSegment } from './elf.js';
import { thrown } from './thrown.js';

const directory = mkdtempSync(join(tmpdir(), 'khorus-elf-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
let files = 0;
const newFile = () => join(directory, `core${files++}`);
const fileOf = (bytes: Uint8Array): string => {
  const file = newFile();
  writeFileSync(file, bytes);
  return file;
};
const coreOf = (segments: readonly TestSegment[]): string => fileOf(elfCore(segments));
const refusal = (bytes: Uint8Array): KhoError => thrown(() => ImageMemory.open(fileOf(bytes)).close());

const PAGE = 4096;
const GIB = 2 ** 30;

test('memory comes from where the segments say, whatever their order, over their borders and above 4 GiB', () => {
  const file = coreOf([
    { type: 4, address: 0, bytes: filled(100, 0xee) }, // notes are no memory
    { address: 6 * GIB, bytes: filled(3 * PAGE, 3) },
    { address: 0x1000, bytes: filled(70_000, 1) },
    { address: 0x1000 + 70_000, bytes: filled(PAGE, 2) },
  ]);
  using image = ImageMemory.open(file);
  expect(image.format).toBe('elf');
  expect(image.ranges.map(({ base, size, backed }) => [base, size, backed])).toEqual([
    [0x1000, 70_000, true],
    [0x1000 + 70_000, PAGE, true],
    [6 * GIB, 3 * PAGE, true],
  ]);
  expect([...image.read(at(0x1000 + 69_999), 3)]).toEqual([1, 2, 2]);
  expect(image.readU32(at(6 * GIB + 5))).toBe(0x03030303);
  expect(image.read(at(0x1000), 70_000 + PAGE)).toEqual(Uint8Array.from([...filled(70_000, 1), ...filled(PAGE, 2)]));
  for (const [address, length] of [
    [0, 1],
    [0xfff, 2],
    [0x1000 + 70_000, PAGE + 1],
    [6 * GIB - 1, 1],
    [6 * GIB, 3 * PAGE + 1],
  ] as const) {
    expect(thrown(() => image.read(at(address), length)).code).toBe('KHO_EFAULT');
  }
  image.write(at(6 * GIB), Uint8Array.of(9));
  expect([...image.view(at(6 * GIB), 2)]).toEqual([9, 3]);
});

test('memory that a segment only names is memory, but unbacked', () => {
  const file = coreOf([
    { address: 0, bytes: filled(PAGE, 1), memorySize: 4 * PAGE },
    { address: 2 * PAGE, bytes: filled(PAGE, 2) },
    { address: 8 * PAGE, memorySize: PAGE },
  ]);
  using image = ImageMemory.open(file);
  expect(image.ranges.map(({ base, size, backed }) => [base / PAGE, size / PAGE, backed])).toEqual([
    [0, 1, true],
    [1, 1, false],
    [2, 1, true],
    [3, 1, false],
    [8, 1, false],
  ]);
  expect(thrown(() => image.read(at(PAGE), 1)).message).toContain('unbacked');
  expect(thrown(() => image.read(at(5 * PAGE), 1)).message).toContain('outside of memory');
});

test('segments may overlap where they agree, as the kernel text of /proc/vmcore does', () => {
  const bytes = Uint8Array.from({ length: 8 * PAGE }, (_, index) => (index * 7) & 255);
  const inside = bytes.slice(2 * PAGE, 4 * PAGE);
  const beyond = Uint8Array.from([...bytes.slice(7 * PAGE), ...filled(PAGE, 5)]);
  for (const segments of [
    [
      { address: 0, bytes },
      { address: 2 * PAGE, bytes: inside },
    ],
    [
      { address: 0, bytes },
      { address: 7 * PAGE, bytes: beyond },
    ],
    // The same bytes of the file twice, as dump-guest-memory -p writes them.
    [
      { address: 0, bytes },
      { address: 2 * PAGE, offset: PAGE + 2 * PAGE, fileSize: 6 * PAGE, memorySize: 6 * PAGE },
    ],
  ]) {
    using image = ImageMemory.open(coreOf(segments));
    expect(Buffer.from(image.read(at(0), 8 * PAGE)).equals(bytes)).toBe(true);
  }
  using longer = ImageMemory.open(
    coreOf([
      { address: 0, bytes },
      { address: 7 * PAGE, bytes: beyond },
    ]),
  );
  expect([...longer.read(at(8 * PAGE), 2)]).toEqual([5, 5]);
  const other = inside.map((byte, index) => (index === 77 ? byte ^ 1 : byte));
  const refused = refusal(
    elfCore([
      { address: 0, bytes },
      { address: 2 * PAGE, bytes: other },
    ]),
  );
  expect([refused.code, refused.message]).toEqual([
    'KHO_EIMAGE',
    expect.stringMatching(/two segments, 0 and 1.*0x2000/),
  ]);
  const process = refusal(
    elfCore([
      { address: 0, bytes: filled(9, 1) },
      { address: 0, bytes: filled(9, 2) },
    ]),
  );
  expect(process.message).toContain('a core of a process has no physical addresses');
});

test('headers that are cut short, foreign or contradictory are KHO_EIMAGE that says what is wrong', () => {
  const good = elfCore([{ address: 0, bytes: filled(PAGE, 1) }]);
  const changed = (change: (bytes: Buffer) => void): Buffer => {
    const bytes = Buffer.from(good);
    change(bytes);
    return bytes;
  };
  const cases: [string, Uint8Array, RegExp][] = [
    ['only the magic', good.subarray(0, 4), /4 bytes, too few for its header: cut short/],
    ['half a header', good.subarray(0, 63), /63 bytes, too few/],
    ['no program header', good.subarray(0, 64), /1 program headers at 0x40, but ends at 0x40: cut short/],
    ['no data', good.subarray(0, PAGE), /segment 0 .* up to 0x2000, but ends at 0x1000: cut short/],
    ['one byte less', good.subarray(0, 2 * PAGE - 1), /but ends at 0x1fff/],
    ['32 bits', changed((b) => b.writeUInt8(1, 4)), /the class 1, expected 2/],
    ['big-endian', changed((b) => b.writeUInt8(2, 5)), /the byte order 2/],
    ['an executable', changed((b) => b.writeUInt16LE(2, 16)), /the type 2, expected 4/],
    ['arm64', changed((b) => b.writeUInt16LE(183, 18)), /the machine 183 \(aarch64\), expected 62/],
    ['other program headers', changed((b) => b.writeUInt16LE(32, 54)), /size of a program header 32/],
    ['program headers nowhere', changed((b) => b.writeBigUInt64LE(2n ** 63n, 32)), /program headers at 0x8/],
    ['no segments', changed((b) => b.writeUInt16LE(0, 56)), /no segment of type PT_LOAD/],
    ['many segments', changed((b) => b.writeUInt16LE(0xfffe, 56)), /65534 program headers/],
    ['sections nowhere', changed((b) => b.writeUInt16LE(0xffff, 56)), /number of segments at 0x0/],
    [
      'a huge number of segments',
      changed((b) => {
        b.writeUInt16LE(0xffff, 56);
        b.writeBigUInt64LE(BigInt(PAGE), 40);
        b.writeUInt32LE(0xffffffff, PAGE + 44);
      }),
      /4294967295 segments/,
    ],
    ['an address beyond 2^52', elfCore([{ address: 2n ** 60n, bytes: filled(9, 1) }]), /p_paddr of 0x1000000000000000/],
    ['memory beyond 2^52', elfCore([{ address: 2 ** 52 - 8, bytes: filled(9, 1) }]), /beyond 2\^52/],
    ['more bytes than memory', elfCore([{ address: 0, bytes: filled(9, 1), memorySize: 8 }]), /0x9 bytes for the 0x8/],
    ['no bytes, no memory', elfCore([{ address: 0 }]), /no segment of type PT_LOAD/],
    ['a kdump dump', Buffer.from('KDUMP   more of it'), /kdump-compressed.*without -z/],
    ['a flattened dump', Buffer.from('makedumpfile\0\0\0\0'), /makedumpfile -R/],
  ];
  for (const [what, bytes, message] of cases) {
    const error = refusal(bytes);
    expect([what, error.code, error.message]).toEqual([what, 'KHO_EIMAGE', expect.stringMatching(message)]);
    expect(error.details.file).toMatch(/core\d+$/);
  }
});

test('the number of segments may stand in a section header', () => {
  const bytes = elfCore([{ address: PAGE, bytes: filled(PAGE, 7) }]);
  bytes.writeUInt16LE(0xffff, 56);
  const section = Buffer.alloc(64);
  section.writeUInt32LE(1, 44);
  bytes.writeBigUInt64LE(BigInt(bytes.length), 40);
  using image = ImageMemory.open(fileOf(Buffer.concat([bytes, section])));
  expect(image.read(at(PAGE), 1)).toEqual(Uint8Array.of(7));
});

test('whatever bytes the headers hold, opening a core ends with an image or KHO_EIMAGE, and no read leaves the file', () => {
  const base = elfCore([
    { address: 0, bytes: filled(PAGE, 1) },
    { address: 4 * PAGE, bytes: filled(2 * PAGE, 2), memorySize: 4 * PAGE },
    { address: 6 * GIB, bytes: filled(100, 3) },
  ]);
  const word = fc.oneof(fc.bigInt(0n, 2n ** 64n - 1n), fc.bigInt(0n, 0x8000n), fc.constantFrom(0n, 4096n, 2n ** 52n));
  const wound = fc.tuple(fc.nat((64 + 3 * 56) / 8 - 1), word);
  const opened = { image: 0, refused: 0 };
  fc.assert(
    fc.property(
      fc.array(wound, { minLength: 1, maxLength: 3 }),
      fc.nat(base.length),
      fc.boolean(),
      (wounds, size, cut) => {
        const bytes = Buffer.from(cut ? base.subarray(0, size) : base);
        for (const [index, value] of wounds)
          if (index * 8 + 8 <= bytes.length) bytes.writeBigUInt64LE(value, index * 8);
        bytes.write('\x7fELF', 0, 'latin1');
        try {
          using image = ImageMemory.open(fileOf(bytes));
          opened.image++;
          for (const { base: start, size: length, backed } of image.ranges) {
            if (backed) expect(image.read(start, length)).toHaveLength(length);
            else expect(thrown(() => image.read(start, 1)).code).toBe('KHO_EFAULT');
          }
        } catch (error) {
          if (!(error instanceof KhoError)) throw error;
          if (error.message.includes('too few for its header')) return;
          expect(error.code).toBe('KHO_EIMAGE');
          opened.refused++;
        }
      },
    ),
    { numRuns: 800 },
  );
  expect(opened.image).toBeGreaterThan(20);
  expect(opened.refused).toBeGreaterThan(100);
});

test('a flat file can be told to leave out the hole below 4 GiB', () => {
  const file = newFile();
  writeFileSync(file, Uint8Array.from([...filled(3 * PAGE, 1), ...filled(PAGE, 2)]));
  using image = ImageMemory.open(file);
  expect(image.read(at(3 * PAGE), 1)[0]).toBe(2); // cached under its old address
  image.setExtents([
    { address: at(0), offset: 0, size: 3 * PAGE },
    { address: at(4 * GIB), offset: 3 * PAGE, size: PAGE },
  ]);
  expect(image.extents).toHaveLength(2);
  expect(image.read(at(4 * GIB), 1)[0]).toBe(2);
  expect(thrown(() => image.read(at(3 * PAGE), 1)).code).toBe('KHO_EFAULT');
  const beyond = [{ address: at(0), offset: 1, size: 4 * PAGE }];
  expect(thrown(() => image.setExtents(beyond)).code).toBe('KHO_EINVAL');
  const twice = [
    { address: at(0), offset: 0, size: 2 },
    { address: at(1), offset: 9, size: 2 },
  ];
  expect(thrown(() => image.setExtents(twice)).code).toBe('KHO_EINVAL');
});

function host(): SharedPhysicalMemory {
  return SharedPhysicalMemory.create([
    { base: at(0), size: 64 * PAGE, nid: 0, backed: true },
    { base: at(4 * GIB), size: 16 * PAGE, nid: 1, backed: true },
    { base: at(8 * GIB), size: 16 * PAGE, nid: 1, backed: false },
  ]);
}

test('a written core holds what it was told to and knows the rest; readelf and gdb would agree', async () => {
  const memory = host();
  memory.fill(at(0), 64 * PAGE, 0x11);
  memory.fill(at(4 * GIB), 16 * PAGE, 0x22);
  const file = newFile();
  await writeElfCore(memory, file, [
    { base: at(5 * PAGE + 100), size: PAGE }, // two pages
    { base: at(7 * PAGE), size: 1 }, // touches them
    { base: at(63 * PAGE), size: PAGE },
    { base: at(4 * GIB), size: 2 * PAGE },
    { base: at(9 * PAGE), size: 0 },
  ]);
  using image = ImageMemory.open(file);
  expect(image.extents.map(({ address, size }) => [address / PAGE, size / PAGE])).toEqual([
    [5, 3],
    [63, 1],
    [(4 * GIB) / PAGE, 2],
  ]);
  const total = (ranges: readonly { size: number }[]) => ranges.reduce((sum, { size }) => sum + size, 0);
  expect(total(image.ranges)).toBe(total(memory.ranges));
  expect([...image.read(at(8 * PAGE - 1), 1), ...image.read(at(4 * GIB), 1)]).toEqual([0x11, 0x22]);
  expect(thrown(() => image.read(at(8 * PAGE), 1)).message).toContain('unbacked');
  expect(statSync(file).size).toBe(7 * PAGE); // headers and six pages
  expect(readdirSync(directory).filter((name) => name.startsWith('.'))).toEqual([]);
  let text: string;
  try {
    text = execFileSync('readelf', ['-lW', file], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  } catch {
    return; // no binutils here
  }
  expect(text).toContain('Elf file type is CORE');
  expect(text).toMatch(/LOAD +0x001000 0x0+5000 0x0+5000 0x003000 0x003000 RWE 0x1000/);
});

test('any choice of ranges is read back page by page, and nothing else is', async () => {
  const memory = host();
  for (let page = 0; page < 64; page++) memory.fill(at(page * PAGE), PAGE, page + 1);
  const range = fc.record({ base: fc.nat(64 * PAGE - 1), size: fc.nat(5 * PAGE) });
  await fc.assert(
    fc.asyncProperty(fc.array(range, { maxLength: 8 }), async (wanted) => {
      const ranges = wanted.map(({ base, size }) => ({ base: at(base), size: Math.min(size, 64 * PAGE - base) }));
      const held = new Set<number>();
      for (const { base, size } of ranges) {
        for (let byte = base; byte < base + size; byte++) held.add(Math.floor(byte / PAGE));
      }
      const file = newFile();
      await writeElfCore(memory, file, ranges);
      using image = ImageMemory.open(file);
      for (let page = 0; page < 64; page++) {
        if (held.has(page)) expect(image.read(at(page * PAGE), PAGE)).toEqual(filled(PAGE, page + 1));
        else expect(thrown(() => image.read(at(page * PAGE), 1)).message).toContain('unbacked');
      }
      rmSync(file);
    }),
    { numRuns: 40 },
  );
});

test('a core that cannot be written leaves nothing, and one that is there is kept', async () => {
  const memory = host();
  const mine = fileOf(Buffer.from('mine'));
  await expect(writeElfCore(memory, mine, [])).rejects.toMatchObject({ code: 'KHO_EEXIST' });
  expect(readFileSync(mine, 'utf8')).toBe('mine');
  for (const base of [2 * GIB, 8 * GIB]) {
    const file = newFile();
    const written = writeElfCore(memory, file, [{ base: at(base), size: PAGE }]);
    await expect(written).rejects.toMatchObject({ code: 'KHO_EFAULT', details: { file } });
    expect(existsSync(file)).toBe(false);
  }
  const nowhere = join(directory, 'no', 'core');
  await expect(writeElfCore(memory, nowhere, [])).rejects.toMatchObject({ code: 'KHO_EIO' });
  const aborted = newFile();
  const signal = AbortSignal.abort();
  await expect(writeElfCore(memory, aborted, [{ base: at(0), size: 1 }], { signal })).rejects.toMatchObject({
    code: 'KHO_ECANCELED',
  });
  expect(readdirSync(directory).filter((name) => name.startsWith('.') || join(directory, name) === aborted)).toEqual(
    [],
  );
  const pieces = SharedPhysicalMemory.create([{ base: at(0), size: 2 ** 29, nid: 0, backed: true }]);
  const odd = Array.from({ length: 2 ** 15 }, (_, index) => ({ base: at(index * 2 * PAGE), size: 1 }));
  await expect(writeElfCore(pieces, newFile(), odd)).rejects.toMatchObject({ code: 'KHO_E2BIG' });
  await writeElfCore(memory, mine, [{ base: at(0), size: 1 }], { force: true });
  using image = ImageMemory.open(mine);
  expect(image.format).toBe('elf');
});

test('a core that becomes shorter while it is open is KHO_EIO', () => {
  const file = coreOf([{ address: 0, bytes: filled(200_000, 1) }]);
  using image = ImageMemory.open(file);
  truncateSync(file, 8192);
  expect(thrown(() => image.read(at(150_000), 1))).toMatchObject({ code: 'KHO_EIO', details: { file } });
});
