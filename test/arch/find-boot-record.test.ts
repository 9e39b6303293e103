import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { X86_64 } from '#dist/arch/index.js';
import { KhoError } from '#dist/errors.js';
import { physicalAddress as at, ImageMemory, type SharedPhysicalMemory } from '#dist/memblock/index.js';
import { thrown } from '../memblock/thrown.js';
import {
  ARRAY,
  bootParamsPage,
  COMMAND_LINE,
  emptyMemory,
  loadRecord,
  MIB,
  PAGE,
  ROOT,
  rootFdt,
  SCRATCH,
  SEGMENT,
  setupData,
  u64s,
} from './kexec-memory.js';

const GIB = 2 ** 30;
const found = (memory: SharedPhysicalMemory) =>
  [...X86_64.bootRecords(memory)].map(({ record, doubt }) => [record.address, doubt?.message]);

test("a real kernel's boot record is found: one segment, kho_data in the middle of four kinds of setup_data", () => {
  const memory = emptyMemory();
  loadRecord(memory);
  expect(X86_64.findBootRecord(memory)).toEqual({
    kind: 'x86_64 setup_data',
    address: SEGMENT,
    firmware: [{ base: 0, size: 64 * MIB, usable: true }],
    commandLine: COMMAND_LINE,
    root: ROOT,
    rootSize: PAGE,
    scratchArray: ARRAY,
    scratchArraySize: 48,
  });
});

test('copies of boot_params that lead to no handover are passed over, wherever they lie', () => {
  const memory = emptyMemory();
  loadRecord(memory);
  const above = SEGMENT + 2 * PAGE;
  const stale = [
    bootParamsPage({}), // the one that firmware booted this kernel with
    bootParamsPage({ setupData: 5 * MIB }), // its setup_data has been overwritten with zeros
    bootParamsPage({ setupData: 2 ** 40 }), // or lies outside of memory
    bootParamsPage({ setupData: 6 * MIB }), // a list that is a circle
    bootParamsPage({ setupData: above, e820: [] }), // no memory map
  ];
  memory.write(at(6 * MIB), setupData(6 * MIB, 9, Buffer.alloc(32)));
  for (const [index, page] of stale.entries()) {
    memory.write(at(above), page);
    memory.write(at(20 * MIB + index * PAGE), page);
    memory.write(at(60 * MIB + index * PAGE), page);
    memory.write(at(40 * MIB + index * 8208 + 32), page);
    expect(found(memory)).toEqual([[SEGMENT, undefined]]);
  }
});

test('a stale record whose root FDT or scratch array is gone is not taken for the real one', () => {
  // What the last kexec left higher up in scratch: the search meets it first.
  const last = { segment: SEGMENT - PAGE * 16, root: 9 * MIB, array: SCRATCH.address + 64 * PAGE };
  const damage: [string, (memory: SharedPhysicalMemory) => void][] = [
    ['zeros', (memory) => memory.fill(at(ROOT), PAGE, 0)],
    ['magic', (memory) => memory.fill(at(ROOT), 1, 0)],
    ['another device tree', (memory) => memory.write(at(ROOT), rootFdt('qemu,virt'))],
    ['size', (memory) => memory.write(at(SEGMENT + PAGE + 64 + 72 + 16 + 8), u64s(2 * PAGE))],
    ['scratch elsewhere', (memory) => memory.write(at(ARRAY), u64s(16 * MIB, 4 * MIB))],
    ['scratch array of noise', (memory) => memory.fill(at(ARRAY), 48, 0xff)],
    ['scratch array of zeros', (memory) => memory.fill(at(ARRAY), 48, 0)],
    ['scratch array outside of memory', (memory) => memory.write(at(SEGMENT + PAGE + 64 + 72 + 16 + 16), u64s(GIB))],
    [
      'command line',
      (memory) => memory.write(at(SEGMENT), bootParamsPage({ setupData: SEGMENT + PAGE + 136, commandLine: 3 * GIB })),
    ],
  ];
  for (const [what, harm] of damage) {
    const memory = emptyMemory();
    loadRecord(memory);
    loadRecord(memory, last);
    expect([what, X86_64.findBootRecord(memory).address]).toEqual([what, SEGMENT]);
    harm(memory);
    expect([what, X86_64.findBootRecord(memory).address]).toEqual([what, last.segment]);
    const doubts = [...X86_64.bootRecords(memory)].map(({ doubt }) => doubt?.code);
    expect([what, doubts]).toEqual([what, ['KHO_EIMAGE', undefined]]);
    // Alone, it is still the best there is: what is wrong with it is told by whoever reads on.
    memory.fill(at(last.segment), PAGE, 0);
    expect([what, X86_64.findBootRecord(memory).address]).toEqual([what, SEGMENT]);
  }
});

test("the kernel's own copy, which is no page, counts only where no page does", () => {
  const memory = emptyMemory();
  loadRecord(memory);
  const copy = SCRATCH.address + 5 * MIB + 0x3a40;
  memory.write(at(copy), memory.read(at(SEGMENT), PAGE));
  memory.write(at(copy + 3 * PAGE + 4), memory.read(at(SEGMENT), PAGE)); // not even 16-aligned: no copy
  expect(found(memory).map(([address]) => address)).toEqual([SEGMENT, copy]);
  expect(X86_64.findBootRecord(memory).address).toBe(SEGMENT);
  memory.fill(at(SEGMENT), PAGE, 0x5a); // the page was reused after the boot, its setup_data is reserved
  expect(X86_64.findBootRecord(memory)).toMatchObject({ address: copy, root: ROOT });
});

test('a record above 4 GiB, and a command line there, are found after the places below', () => {
  const memory = emptyMemory([0, 64 * MIB], [4 * GIB, 64 * MIB]);
  const scratch = { address: 4 * GIB, size: 32 * MIB };
  loadRecord(memory, { segment: 4 * GIB + 16 * MIB, array: 4 * GIB, scratch });
  expect(X86_64.findBootRecord(memory)).toMatchObject({
    address: 4 * GIB + 16 * MIB,
    commandLine: COMMAND_LINE,
    scratchArray: 4 * GIB,
  });
  loadRecord(memory);
  expect(found(memory).map(([address]) => address)).toEqual([SEGMENT, 4 * GIB + 16 * MIB]);
});

test('a command line that ends with its page needs no page behind it', () => {
  const memory = emptyMemory([0, 64 * MIB]);
  loadRecord(memory);
  const end = 64 * MIB - COMMAND_LINE.length - 1;
  memory.write(at(end), Buffer.from(`${COMMAND_LINE}\0`));
  const page = bootParamsPage({ setupData: SEGMENT + PAGE + 136, commandLine: end });
  memory.write(at(SEGMENT), page);
  expect(X86_64.findBootRecord(memory)).toMatchObject({ commandLine: COMMAND_LINE });
  // Without its NUL it would go on outside of memory.
  memory.fill(at(64 * MIB - 1), 1, 0x61);
  const record = X86_64.findBootRecord(memory);
  expect([record.commandLine, record.damage?.code]).toEqual(['', 'KHO_EIMAGE']);
  // Longer than any command line may be: cut.
  memory.fill(at(30 * MIB), 5000, 0x62);
  memory.write(at(SEGMENT), bootParamsPage({ setupData: SEGMENT + PAGE + 136, commandLine: 30 * MIB }));
  expect(X86_64.findBootRecord(memory).commandLine).toBe('b'.repeat(2048));
});

test('reading a record at a given address says what is missing there', () => {
  const memory = emptyMemory();
  loadRecord(memory);
  expect(X86_64.readBootRecord(memory, at(SEGMENT)).root).toBe(ROOT);
  const refusal = (address: number) => thrown(() => X86_64.readBootRecord(memory, at(address)));
  expect(refusal(MIB)).toMatchObject({ code: 'KHO_EIMAGE', details: { address: MIB } });
  expect(refusal(MIB).message).toMatch(/no boot_params at 0x100000.*HdrS/);
  expect(refusal(2 * GIB).message).toMatch(/no boot_params can be read at 0x80000000.*outside of memory/);
  memory.write(at(MIB), bootParamsPage({}));
  expect(refusal(MIB).message).toMatch(/lead to no kho_data: no setup_data of type 10/);
  memory.write(at(MIB), bootParamsPage({ setupData: 2 ** 41 }));
  expect(refusal(MIB).message).toMatch(/setup_data points nowhere.*0x200000000/);
  memory.write(at(MIB), bootParamsPage({ setupData: 2 * MIB }));
  memory.write(at(2 * MIB), setupData(2 * MIB, 9, new Uint8Array(4)));
  expect(refusal(MIB).message).toMatch(/more than 64 nodes/);
  memory.write(at(2 * MIB), setupData(0, 10, u64s(2n ** 63n, 0, 0, 0)));
  expect(refusal(MIB).message).toMatch(/holds no addresses/);
  for (const root of [0, ROOT + 8]) {
    memory.write(at(2 * MIB), setupData(0, 10, u64s(root, PAGE, ARRAY, 48)));
    expect(refusal(MIB).message).toMatch(/fdt_addr is 0x\w+, which is not the address of a page/);
  }
});

test('a sparse file of 2 GiB is searched to its end', () => {
  const directory = mkdtempSync(join(tmpdir(), 'khorus-arch-'));
  try {
    const file = join(directory, 'ram.img');
    const memory = emptyMemory();
    loadRecord(memory);
    const descriptor = openSync(file, 'w');
    // At the lowest place that the search comes to.
    for (const [address, size] of [
      [SEGMENT, 2 * PAGE],
      [ROOT, PAGE],
      [ARRAY, PAGE],
    ] as const) {
      writeSync(descriptor, memory.read(at(address), size), 0, size, address);
    }
    closeSync(descriptor);
    truncateSync(file, 2 * GIB);
    using image = ImageMemory.open(file);
    expect(X86_64.findBootRecord(image).address).toBe(SEGMENT);
    truncateSync(file, SEGMENT);
    using cut = ImageMemory.open(file);
    const error = thrown(() => X86_64.findBootRecord(cut));
    expect([error.code, error.message]).toEqual(['KHO_EIMAGE', expect.stringContaining('no boot record')]);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

test('memory of hostile records gives records or KhoErrors, and the search comes to its end', () => {
  const place = fc.integer({ min: 0, max: (64 * MIB) / 16 - 1 }).map((number) => number * 16);
  const pointer = fc.oneof(place, fc.constantFrom(0, SEGMENT, ROOT, 2 ** 40, 2 ** 52, 2 ** 53, 64 * MIB - 8));
  const piece = fc.oneof(
    fc.record({
      at: place,
      bytes: fc.tuple(pointer, pointer).map(([list, text]) => bootParamsPage({ setupData: list, commandLine: text })),
    }),
    fc.record({
      at: pointer,
      bytes: fc
        .tuple(pointer, fc.constantFrom(9, 10), fc.array(pointer, { minLength: 4, maxLength: 4 }))
        .map(([next, type, words]) => setupData(next, type, u64s(...words))),
    }),
    fc.record({ at: pointer, bytes: fc.uint8Array({ minLength: 1, maxLength: 64 }) }),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      const memory = emptyMemory();
      loadRecord(memory);
      for (const { at: address, bytes } of pieces) {
        if (address + bytes.length <= 64 * MIB) memory.write(at(address), bytes);
      }
      try {
        X86_64.findBootRecord(memory);
      } catch (error) {
        if (!(error instanceof KhoError)) throw error;
        expect(error.code).toBe('KHO_EIMAGE');
      }
    }),
    { numRuns: 60 },
  );
});

test('memory that is nothing but magic numbers is searched in bounded time, and its pages still are', () => {
  const memory = emptyMemory([0, 64 * MIB]);
  // 0xaa55 and "HdrS" every 16 bytes, so that each place needs a closer look.
  const tile = Buffer.alloc(MIB);
  for (let offset = 0; offset < MIB; offset += 16) {
    tile.writeUInt16LE(0xaa55, offset + 14);
    tile.write('HdrS', (offset + 18) % MIB, 'latin1');
  }
  for (let address = 0; address < 64 * MIB; address += MIB) memory.write(at(address), tile);
  loadRecord(memory, {});
  expect(X86_64.findBootRecord(memory).address).toBe(SEGMENT);
});
