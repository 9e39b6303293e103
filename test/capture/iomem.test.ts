import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CapturedFiles } from '#dist/capture/captured-files.js';
import { type Iomem, kernelOf, readIomem } from '#dist/capture/iomem.js';
import { KhoError } from '#dist/errors.js';
import { iomemText, SERVER_IOMEM, writeMachine } from '../support/machine-files.js';

const filesWith = (text: string | Uint8Array) => new CapturedFiles(writeMachine({ 'proc/iomem': text }));

/** What a file says that hides nothing. */
function shown(files: CapturedFiles): Iomem {
  const iomem = readIomem(files);
  if (iomem === undefined || iomem === 'hidden') throw new Error('it is there to be read');
  return iomem;
}

const invalid = (pattern: RegExp) =>
  expect.objectContaining({ code: 'KHO_EINVAL', message: expect.stringMatching(pattern) });

describe('/proc/iomem', () => {
  it('gives memory, what firmware reserved, the kernel and a crash kernel', () => {
    const files = filesWith(iomemText(SERVER_IOMEM));
    const iomem = shown(files);
    expect(iomem.ram.map(({ base, end }) => [base, end])).toEqual([
      [0x1000, 0x9d400],
      [0x100000, 0x30000000],
      [0x30100000, 0x3fff1000],
      [0x100000000, 0x120000000],
    ]);
    expect(kernelOf(files, iomem)).toMatchObject({ base: 0x1000000, end: 0x3000000 });
    expect(iomem.taken).toMatchObject([{ base: 0x28000000, end: 0x2c000000 }]);
    expect(iomem.reserved).toHaveLength(6);
    expect(iomem.driverManaged).toEqual([]);
  });

  it('does not take memory that a driver plugged in later for memory of the boot', () => {
    const text = iomemText([
      [0x1000, 0x9ffff, 'System RAM'],
      [0x100000000, 0x1ffffffff, 'Soft Reserved'],
      [0x100000000, 0x1ffffffff, '  dax0.0'],
      [0x100000000, 0x1ffffffff, '    System RAM (kmem)'],
    ]);
    expect(readIomem(filesWith(text))).toMatchObject({
      ram: [{ base: 0x1000 }],
      driverManaged: [{ base: 0x100000000, end: 0x200000000 }],
    });
  });

  it('has plain System RAM for memory that a driver plugged in before Linux 5.8', () => {
    const text = iomemText([
      [0x1000, 0x9ffff, 'System RAM'],
      [0x100000000, 0x1ffffffff, 'Persistent Memory'],
      [0x100000000, 0x1ffffffff, '  dax0.0'],
      [0x108000000, 0x1ffffffff, '    System RAM'],
    ]);
    expect(readIomem(filesWith(text))).toMatchObject({
      ram: [{ base: 0x1000 }],
      driverManaged: [{ base: 0x108000000, end: 0x200000000 }],
    });
  });

  it('has memory of the boot inside of CXL windows, and the kernel perhaps with it', () => {
    const files = filesWith(
      iomemText([
        [0x1000, 0x9ffff, 'System RAM'],
        [0x100000000, 0x8ffffffff, 'CXL Window 0'],
        [0x100000000, 0x7ffffffff, '  System RAM'],
        [0x140000000, 0x1411fffff, '    Kernel code'],
        [0x141200000, 0x1417fffff, '    Kernel data'],
        [0x141800000, 0x141bfffff, '    Kernel bss'],
        [0x200000000, 0x20fffffff, '    Crash kernel'],
        [0x800000000, 0x80fffffff, '  Reserved'],
        [0x810000000, 0x8ffffffff, '  region0'],
        [0x810000000, 0x8ffffffff, '    dax0.0'],
        [0x810000000, 0x8ffffffff, '      System RAM (kmem)'],
      ]),
    );
    const iomem = shown(files);
    expect(iomem).toMatchObject({
      ram: [{ base: 0x1000 }, { base: 0x100000000, end: 0x800000000 }],
      driverManaged: [{ base: 0x810000000, end: 0x900000000 }],
      reserved: [{ base: 0x800000000 }],
      taken: [{ base: 0x200000000, end: 0x210000000 }],
    });
    expect(kernelOf(files, iomem)).toMatchObject({ base: 0x140000000, end: 0x141c00000 });
  });

  it('is refused where something else is in the place of the kernel', () => {
    const files = filesWith(
      iomemText([
        [0x100000, 0x2fffffff, 'System RAM'],
        [0x1000000, 0x1ffffff, '  Kernel code'],
        [0x2000000, 0x20fffff, '  Reserved'],
        [0x2100000, 0x22fffff, '  Kernel data'],
        [0x2300000, 0x23fffff, '  Kernel bss'],
      ]),
    );
    const iomem = shown(files);
    expect(() => kernelOf(files, iomem)).toThrow(
      invalid(/has 0x2000000-0x20fffff \(.*iomem:3\) where the kernel is, 0x1000000-0x23fffff$/),
    );
  });

  it('is told apart where it hides its addresses, and where there is none', () => {
    const hidden = '00000000-00000000 : Reserved\n00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n';
    expect(readIomem(filesWith(hidden))).toBe('hidden');
    expect(readIomem(new CapturedFiles(writeMachine({})))).toBeUndefined();
  });

  it('is refused with file and line where it is no such file, cut, or contradicts itself', () => {
    const cases: [string, RegExp][] = [
      ['', /proc\/iomem is empty/],
      ['00001000-0009fbff : System RAM\n0010', /iomem:2 is cut/],
      ['00001000-0009fbff : System RAM\nhello\n', /iomem:2 is 'hello'; expected a line such as/],
      ['0000:00:1f.2 : nothing\n', /iomem:1 is /],
      ['00002000-00001000 : System RAM\n', /iomem:1 ends before it begins/],
      [
        '00001000-0009fbff : System RAM\n00009000-000fffff : Reserved\n',
        /iomem:2 has 0x9000-0xfffff \(Reserved\), which overlaps 0x1000-0x9fbff \(System RAM, .*iomem:1\)/,
      ],
      ['  01000000-01ffffff : Kernel code\n', /iomem:1 is inside of a range that is not there/],
      [
        '00100000-1fffffff : System RAM\n  20000000-20000fff : Kernel code\n',
        /iomem:2 has .* not inside of 0x100000-0x1fffffff/,
      ],
      ['10000000000000-1fffffffffffff : System RAM\n', /memory above 2\^52/],
    ];
    for (const [text, pattern] of cases) expect(() => readIomem(filesWith(text)), text).toThrow(invalid(pattern));
    expect(() => readIomem(filesWith(Uint8Array.of(0x7f, 0x45, 0x4c, 0x46, 0, 0xff)))).toThrow(invalid(/is no text/));
  });

  it('is never read half: wherever it is cut inside of a line, that line is named', () => {
    const text = iomemText(SERVER_IOMEM);
    const root = writeMachine({ 'proc/iomem': text });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: text.length - 1 }), (length) => {
        fc.pre(text[length - 1] !== '\n');
        writeFileSync(join(root, 'proc/iomem'), text.slice(0, length));
        const line = text.slice(0, length).split('\n').length;
        expect(() => readIomem(new CapturedFiles(root))).toThrow(invalid(new RegExp(`iomem:${line} is cut`)));
      }),
    );
  });

  it('throws nothing but a KhoError, whatever is changed in it', () => {
    const text = iomemText(SERVER_IOMEM);
    const root = writeMachine({ 'proc/iomem': text });
    const change = fc.tuple(fc.nat(text.length - 1), fc.string({ maxLength: 6, unit: 'binary' }));
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
        let changed = text;
        for (const [at, what] of changes) changed = changed.slice(0, at) + what + changed.slice(at + what.length);
        writeFileSync(join(root, 'proc/iomem'), changed);
        try {
          readIomem(new CapturedFiles(root));
        } catch (error) {
          expect(error).toBeInstanceOf(KhoError);
        }
      }),
    );
  });
});
