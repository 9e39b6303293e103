import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { findQemuRamExtents, qemuRamExtents, X86_64 } from '#dist/arch/index.js';
import { physicalAddress as at, ImageMemory } from '#dist/memblock/index.js';
import { bootParamsPage, emptyMemory, loadRecord, MIB, PAGE } from './kexec-memory.js';

const GIB = 2 ** 30;
const directory = mkdtempSync(join(tmpdir(), 'khorus-qemu-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
let files = 0;

type E820 = readonly (readonly [base: number, size: number, type: number])[];

const firmware = (e820: E820) => e820.map(([base, size, type]) => ({ base: at(base), size, usable: type === 1 }));

/** What a PC's firmware tells: a hole below 1 MiB, ACPI tables at the top of low memory, ROMs below 4 GiB. */
function pc(low: number, high: number): E820 {
  return [
    [0, 0x9fc00, 1],
    [0x9fc00, 0x400, 2],
    [0xf0000, 0x10000, 2],
    [MIB, low - MIB - 0x20000, 1],
    [low - 0x20000, 0x20000, 2],
    [0xfffc0000, 0x40000, 2],
    ...(high === 0 ? [] : ([[4 * GIB, high, 1]] as const)),
    [0xfd_0000_0000, 3 * 2 ** 32, 2],
  ];
}

test("QEMU's split is seen by the lengths: 3 GiB of a pc, 2 GiB of a q35, whatever there is of another", () => {
  for (const [low, high] of [
    [3 * GIB, GIB],
    [3 * GIB, 61 * GIB],
    [2 * GIB, GIB],
    [0xe0000000, 0.5 * GIB],
  ] as const) {
    expect(qemuRamExtents(firmware(pc(low, high)), low + high)).toEqual([
      { address: 0, offset: 0, size: low },
      { address: 4 * GIB, offset: low, size: high },
    ]);
  }
});

test('a flat file, one of another machine, and one without memory above 4 GiB are left as they are', () => {
  const map = firmware(pc(3 * GIB, GIB));
  for (const size of [5 * GIB, 4 * GIB - PAGE, 4 * GIB + GIB / 2, 3 * GIB, GIB, 4 * GIB + 1]) {
    expect([size, qemuRamExtents(map, size)]).toEqual([size, undefined]);
  }
  expect(qemuRamExtents(firmware(pc(3 * GIB, 0)), 3 * GIB)).toBeUndefined();
  // Ours: memory has no hole up to where the file ends.
  expect(
    qemuRamExtents(
      firmware([
        [0, 3 * GIB, 1],
        [4 * GIB, GIB, 1],
      ]),
      5 * GIB,
    ),
  ).toBeUndefined();
  expect(qemuRamExtents([], 4 * GIB)).toBeUndefined();
});

/** A sparse file with pieces of memory, at the offsets that QEMU gives them. */
function ramFile(low: number, high: number, e820: E820): string {
  const memory = emptyMemory([0, 64 * MIB], [4 * GIB, high]);
  const place = { root: 4 * GIB + 8 * MIB, e820 };
  loadRecord(memory, place);
  const file = join(directory, `ram${files++}`);
  const descriptor = openSync(file, 'w');
  const copy = (from: number, size: number, to: number) =>
    writeSync(descriptor, memory.read(at(from), size), 0, size, to);
  copy(48 * MIB, 8 * MIB, 48 * MIB); // scratch, with the record in it
  copy(place.root, PAGE, low + 8 * MIB);
  closeSync(descriptor);
  truncateSync(file, low + high);
  return file;
}

test("a RAM file of QEMU's is read with memory above 4 GiB where it belongs", () => {
  const low = 2 * GIB;
  const high = 64 * MIB;
  using image = ImageMemory.open(ramFile(low, high, pc(low, high)));
  const extents = findQemuRamExtents(image);
  expect(extents?.map(({ address, offset }) => [address, offset])).toEqual([
    [0, 0],
    [4 * GIB, low],
  ]);
  const flat = [...X86_64.bootRecords(image)];
  expect(flat).toHaveLength(1);
  expect(flat[0]?.doubt?.message).toContain('leads nowhere');
  image.setExtents(extents ?? []);
  const record = X86_64.findBootRecord(image);
  expect([record.root, image.read(record.root, 4)]).toEqual([4 * GIB + 8 * MIB, Uint8Array.of(0xd0, 0x0d, 0xfe, 0xed)]);
});

test('a stale map that is none does not decide, and a small file is not even searched', () => {
  const low = 2 * GIB;
  const high = 64 * MIB;
  const file = ramFile(low, high, pc(low, high));
  const descriptor = openSync(file, 'r+');
  // Higher up, so that the search meets them first: no memory at 0, and an empty entry.
  const stale = [bootParamsPage({ e820: [[4 * GIB, high, 1]] }), bootParamsPage({ e820: [[0, 0, 1]] })];
  for (const [index, page] of stale.entries()) writeSync(descriptor, page, 0, PAGE, 60 * MIB + index * PAGE);
  closeSync(descriptor);
  using image = ImageMemory.open(file);
  expect(findQemuRamExtents(image)).toHaveLength(2);
  truncateSync(file, GIB);
  using small = ImageMemory.open(file);
  expect(findQemuRamExtents(small)).toBeUndefined();
});
