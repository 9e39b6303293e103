import fc from 'fast-check';
import { KhoError } from 'khorus';
import { describe, expect, test } from 'vitest';
import { X86_64 } from '#dist/arch/index.js';
import { type PhysicalAddress, physicalAddress, SharedPhysicalMemory } from '#dist/memblock/index.js';
import { fakeBzImage } from '../support/fake-bz-image.js';

const MIB = 2 ** 20;
const area = (address: number, size: number) => ({ address: physicalAddress(address), size });
const kernel = (fields = {}) => ({ file: 'bzImage', bytes: fakeBzImage(fields) });
const base = {
  firmware: X86_64.firmwareMap(512 * MIB),
  commandLine: 'kho=on console=ttyS0',
  root: physicalAddress(0x7000000),
  scratch: [area(128 * MIB, 16 * MIB), area(160 * MIB, 8 * MIB)],
};

describe('loading a kernel into scratch', () => {
  test('every segment lies in scratch, aligned, apart from all others, and a successor finds the record', () => {
    const scratchAreas = fc
      .array(fc.tuple(fc.integer({ min: 0, max: 12 }), fc.integer({ min: 0, max: 24 })), { minLength: 1, maxLength: 4 })
      .map((pairs) => {
        let at = 16 * MIB;
        return pairs.map(([gap, size]) => {
          const address = at + gap * 4 * MIB;
          at = address + size * MIB;
          return area(address, size * MIB);
        });
      });
    let placed = 0;
    fc.assert(
      fc.property(
        scratchAreas,
        fc.integer({ min: 1, max: 12 * MIB }),
        fc.option(fc.integer({ min: 1, max: 2 * MIB })),
        (scratch, initSize, initrdSize) => {
          const initrd =
            initrdSize === null ? undefined : { file: 'initrd', bytes: new Uint8Array(initrdSize).fill(9) };
          let image: ReturnType<typeof X86_64.loadKexec>;
          try {
            image = X86_64.loadKexec({ ...base, scratch, kernel: kernel({ initSize }), ...(initrd && { initrd }) });
          } catch (error) {
            expect(error).toMatchObject({ code: 'KHO_EADDRNOTAVAIL' });
            return;
          }
          placed++;
          const sorted = [...image.segments].sort((a, b) => a.address - b.address);
          for (const [index, { what, address, bytes, memorySize }] of sorted.entries()) {
            expect(memorySize % 4096).toBe(0);
            expect(memorySize).toBeGreaterThanOrEqual(bytes.length);
            const inside = scratch.some((a) => address >= a.address && address + memorySize <= a.address + a.size);
            expect([what, inside]).toEqual([what, true]);
            const next = sorted[index + 1];
            if (next !== undefined) expect(address + memorySize).toBeLessThanOrEqual(next.address);
          }
          const loaded = image.segments.find(({ what }) => what === 'the kernel');
          expect((loaded?.address ?? 1) % (2 * MIB)).toBe(0);
          expect(loaded?.memorySize).toBeGreaterThanOrEqual(initSize);
          expect(image.start?.entry).toBe((loaded?.address ?? 0) + 0x200);

          // The search begins at the top of memory: no more of it than there must be.
          const end = Math.max(...scratch.map(({ address, size }) => address + size));
          const memory = SharedPhysicalMemory.create([{ base: physicalAddress(0), size: end, nid: 0, backed: true }]);
          for (const segment of image.segments) memory.write(segment.address, segment.bytes);
          const found = X86_64.findBootRecord(memory);
          expect(found).toMatchObject({
            address: image.record.address,
            commandLine: base.commandLine,
            root: base.root,
            firmware: base.firmware,
          });
          const params = memory.read(image.record.address, 4096);
          const view = new DataView(params.buffer);
          expect(view.getUint32(0x260, true)).toBe(initSize); // the kernel's own header came along
          const ramdisk = image.segments.find(({ what }) => what === 'the initrd');
          expect(view.getUint32(0x218, true)).toBe(ramdisk?.address ?? 0);
          expect(view.getUint32(0x21c, true)).toBe(initrdSize ?? 0);
        },
      ),
      { numRuns: 40 },
    );
    expect(placed).toBeGreaterThan(5);
  });

  test('scratch areas are tried in their order, each from its top', () => {
    const { segments } = X86_64.loadKexec({ ...base, kernel: kernel() });
    expect(segments.map(({ what, address }) => [what, address / MIB])).toEqual([
      ['the scratch array', 144 - 1 / 16],
      ['boot_params', 144 - 2 / 256],
      ['the kernel', 140],
      ["the boot ROM's page tables", 144 - 4 / 256],
    ]);
  });

  test('what fits nowhere is KHO_EADDRNOTAVAIL that tells of every area', () => {
    const load = () => X86_64.loadKexec({ ...base, kernel: kernel({ initSize: 17 * MIB }) });
    expect(load).toThrow(KhoError);
    expect(load).toThrow(
      expect.objectContaining({
        code: 'KHO_EADDRNOTAVAIL',
        errno: 99,
        message: expect.stringMatching(
          /^the kernel needs 17 MiB, aligned to 2 MiB, and fits into no scratch area \(0x8000000 of 16 MiB, .* of it taken; 0xa000000 of 8 MiB\): .*kho_scratch=/,
        ),
      }),
    );
    const initrd = { file: 'initrd', bytes: new Uint8Array(20 * MIB) };
    expect(() => X86_64.loadKexec({ ...base, kernel: kernel(), initrd })).toThrow(/the initrd needs 20 MiB/);
  });

  test('a kernel goes no lower than it prefers', () => {
    const scratch = [area(4 * MIB, 8 * MIB), area(64 * MIB, 8 * MIB)];
    const { segments } = X86_64.loadKexec({ ...base, scratch, kernel: kernel() });
    expect(segments.find(({ what }) => what === 'the kernel')?.address).toBeGreaterThanOrEqual(64 * MIB);
    const low = { ...base, scratch: [area(4 * MIB, 8 * MIB)], kernel: kernel() };
    expect(() => X86_64.loadKexec(low)).toThrow(/0x400000 of 8 MiB, none of it where this may lie/);
  });

  test('segments above 4 GiB are reached through the upper halves of their fields', () => {
    const scratch = [area(16 * MIB, 4096 * 32), area(5 * 2 ** 30, 64 * MIB)];
    const initrd = { file: 'initrd', bytes: new Uint8Array(MIB) };
    const image = X86_64.loadKexec({ ...base, scratch, kernel: kernel(), initrd });
    const view = new DataView(image.record.bytes.buffer);
    const ramdisk = image.segments.find(({ what }) => what === 'the initrd')?.address ?? 0;
    expect(ramdisk).toBeGreaterThan(5 * 2 ** 30);
    expect(view.getUint32(0xc0, true) * 2 ** 32 + view.getUint32(0x218, true)).toBe(ramdisk);
  });

  test('a command line longer than the kernel takes is KHO_EINVAL', () => {
    const commandLine = 'x'.repeat(300);
    expect(() => X86_64.loadKexec({ ...base, commandLine, kernel: kernel({ commandLineSize: 255 }) })).toThrow(
      /300 bytes, more than 255/,
    );
    expect(X86_64.loadKexec({ ...base, commandLine, kernel: kernel({ commandLineSize: 300 }) }).start).toBeDefined();
    expect(() => X86_64.loadKexec({ ...base, commandLine: 'x'.repeat(2048) })).toThrow(/2048 bytes, more than 2047/);
  });

  test('without a kernel there is the boot record alone', () => {
    const image = X86_64.loadKexec(base);
    expect(image.start).toBeUndefined();
    expect(image.segments.map(({ what }) => what)).toEqual(['the scratch array', 'boot_params']);
  });
});

describe('the boot ROM', () => {
  const { start, segments, record } = X86_64.loadKexec({ ...base, kernel: kernel() });
  const rom = start?.rom ?? new Uint8Array();
  const tables = segments.find(({ what }) => what.includes('page tables'));

  test('is 64 KiB whose reset vector jumps to its beginning', () => {
    expect(rom.length).toBe(0x10000);
    expect([...rom.subarray(0xfff0, 0xfff5)]).toEqual([0xea, 0, 0, 0, 0xf0]);
  });

  test('loads the page tables, boot_params and the entry', () => {
    const text = Buffer.from(rom).toString('latin1');
    const encoded = (value: number, length: 4 | 8) => {
      const bytes = Buffer.alloc(8);
      bytes.writeBigUInt64LE(BigInt(value));
      return bytes.subarray(0, length).toString('latin1');
    };
    expect(text).toContain(`\x66\xb8${encoded(tables?.address ?? 0, 4)}\x0f\x22\xd8`); // mov cr3
    expect(text).toContain(`\x48\xbe${encoded(record.address, 8)}`); // mov rsi
    expect(text).toContain(`\x48\xb8${encoded(start?.entry ?? 0, 8)}\xff\xe0`); // mov rax; jmp rax
  });

  test('its page tables map every address below 512 GiB to itself', () => {
    const view = new DataView((tables?.bytes ?? new Uint8Array()).buffer);
    const directory = Number(view.getBigUint64(0, true) & ~0xfffn);
    expect(directory).toBe((tables?.address ?? 0) + 4096);
    for (let gigabyte = 0; gigabyte < 512; gigabyte++) {
      const entry = view.getBigUint64(4096 + gigabyte * 8, true);
      expect(entry & 0x83n).toBe(0x83n); // present, writable, a page of 1 GiB
      expect(entry >> 30n).toBe(BigInt(gigabyte));
    }
    const others = Array.from({ length: 511 }, (_, index) => view.getBigUint64(8 + index * 8, true));
    expect(others.every((entry) => entry === 0n)).toBe(true);
  });

  test('nothing of it depends on more than the addresses', () => {
    const again = X86_64.loadKexec({ ...base, kernel: kernel() });
    expect(Buffer.from(again.start?.rom ?? []).equals(Buffer.from(rom))).toBe(true);
    const elsewhere = X86_64.loadKexec({ ...base, scratch: [area(64 * MIB, 32 * MIB)], kernel: kernel() });
    expect(Buffer.from(elsewhere.start?.rom ?? []).equals(Buffer.from(rom))).toBe(false);
    expect(record.address as PhysicalAddress).not.toBe(elsewhere.record.address);
  });
});
