import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { KhoError } from '#dist/errors.js';
import {
  type KernelParameters,
  parseCommandLine,
  RESERVE_MEM_MAX_ENTRIES,
  tokenizeCommandLine,
} from '#dist/memblock/command-line.js';
import { kstrtobool, kstrtouint, memparse } from '#dist/memblock/kstrtox.js';

const MIB = 2 ** 20;
const strict = (text: string): KernelParameters => parseCommandLine(text, { mode: 'strict', khoDefault: false });
const kernel = (text: string): KernelParameters => parseCommandLine(text, { mode: 'kernel', khoDefault: false });

function refusal(text: string): KhoError {
  try {
    strict(text);
  } catch (error) {
    if (error instanceof KhoError) return error;
    throw error;
  }
  throw new Error(`'${text}' was accepted`);
}

describe('memparse', () => {
  it.each([
    ['0', 0, ''],
    ['4096', 4096, ''],
    ['0x1000', 4096, ''],
    ['0X1f', 31, ''],
    ['010', 8, ''],
    ['019', 1, '9'],
    ['08', 0, '8'],
    ['0x', 0, 'x'],
    ['0xg', 0, 'xg'],
    ['1K', 1024, ''],
    ['16m,1', 16 * MIB, ',1'],
    ['2G', 2 ** 31, ''],
    ['3T', 3 * 2 ** 40, ''],
    ['1p', 2 ** 50, ''],
    ['1E', 2 ** 60, ''],
    ['0x1E', 30, ''],
    ['1KB', 1024, 'B'],
    ['1kk', 1024, 'k'],
    ['M', 0, ''],
    ['', 0, ''],
    ['-1', 0, '-1'],
    ['+1', 0, '+1'],
    [' 1', 0, ' 1'],
    ['16E', 0, ''],
    ['17E', 2 ** 60, ''],
    ['18446744073709551617', 1, ''],
  ])("reads '%s' as %d and leaves '%s'", (text, value, rest) => {
    expect(memparse(text)).toEqual({ value, rest });
  });

  it('reads back every size that it is given, in any radix', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.constantFrom('', ',', ':x', ' '), (value, rest) => {
        expect(memparse(`${value}${rest}`)).toEqual({ value, rest });
        expect(memparse(`0x${value.toString(16)}${rest}`)).toEqual({ value, rest });
        expect(memparse(`0${value.toString(8)}${rest}`)).toEqual({ value, rest });
      }),
    );
  });
});

describe('kstrtobool and kstrtouint', () => {
  it.each(['y', 'Yes', '1', '1x', 't', 'TRUE', 'on', 'ON', 'Only', 'enable', 'E'])("'%s' is true", (text) => {
    expect(kstrtobool(text)).toBe(true);
  });
  it.each(['n', 'No', '0', 'f', 'False', 'off', 'OF', 'disabled'])("'%s' is false", (text) => {
    expect(kstrtobool(text)).toBe(false);
  });
  it.each(['', 'o', 'O', '2', ' on', 'x', '-1'])("'%s' is neither", (text) => {
    expect(kstrtobool(text)).toBeUndefined();
  });
  it.each([
    ['0', 0],
    ['+7', 7],
    ['012', 12],
    ['9\n', 9],
    ['4294967295', 4294967295],
    ['4294967296', undefined],
    ['-1', undefined],
    ['', undefined],
    ['+', undefined],
    ['1 ', undefined],
    ['0x1', undefined],
  ])("'%s' is %s", (text, value) => {
    expect(kstrtouint(text)).toBe(value);
  });
});

describe('tokenizeCommandLine', () => {
  it.each([
    ['', []],
    ['  \t\n ', []],
    [
      'quiet kho=on',
      [
        ['quiet', undefined],
        ['kho', 'on'],
      ],
    ],
    [
      'a= b',
      [
        ['a', ''],
        ['b', undefined],
      ],
    ],
    ['a=b=c', [['a', 'b=c']]],
    ['=a', [['=a', undefined]]],
    ['=a=b', [['=a', 'b']]],
    [
      'a="b c" d',
      [
        ['a', 'b c'],
        ['d', undefined],
      ],
    ],
    [
      '"a=b c" d',
      [
        ['a', 'b c'],
        ['d', undefined],
      ],
    ],
    ['"a b"', [['a b', undefined]]],
    ['a=b" c"', [['a', 'b" c"']]],
    ['a="b"c', [['a', 'b"c']]],
    ['a="b c', [['a', 'b c']]],
    [
      'a="" b',
      [
        ['a', ''],
        ['b', undefined],
      ],
    ],
    ['a="', [['a', '']]],
    ['"', [['', undefined]]],
    ['a -- b', [['a', undefined]]],
    [
      'a --=1 b',
      [
        ['a', undefined],
        ['--', '1'],
        ['b', undefined],
      ],
    ],
    [
      'a\u00a0b',
      [
        ['a', undefined],
        ['b', undefined],
      ],
    ],
  ])('splits <%s>', (text, words) => {
    expect(tokenizeCommandLine(text).map(({ name, value }) => [name, value])).toEqual(words);
  });

  it('says where each word begins', () => {
    expect(tokenizeCommandLine('  quiet "x y"  z=1').map(({ offset }) => offset)).toEqual([2, 8, 15]);
  });

  it('ends for every text, and finds plain words again', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom('"', ' ', '=', '-', 'a') }), (text) => {
        for (const { offset, name } of tokenizeCommandLine(text))
          expect(text.indexOf(name, offset)).toBeLessThanOrEqual(offset + 1);
      }),
    );
  });
});

describe('kho=', () => {
  it('has no default of its own', () => {
    expect(strict('quiet').kho).toBe(false);
    expect(parseCommandLine('quiet', { mode: 'strict', khoDefault: true }).kho).toBe(true);
    expect(parseCommandLine('kho=0', { mode: 'strict', khoDefault: true }).kho).toBe(false);
  });
  it('may be said twice: the later counts', () => {
    expect(strict('kho=on kho=off').kho).toBe(false);
  });
  it.each(['kho', 'kho=', 'kho=maybe'])('is refused as %s, and in kernel mode ignored with a warning', (word) => {
    expect(refusal(`quiet ${word}`)).toMatchObject({ code: 'KHO_EINVAL', details: { field: 'kho', offset: 6 } });
    const parameters = kernel(`kho=on ${word}`);
    expect(parameters.kho).toBe(true);
    expect(parameters.warnings).toEqual([`${word}: expected on or off; KHO stays on`]);
  });
});

describe('kho_scratch=', () => {
  it('is 200 % of what the kernel allocates, unless given', () => {
    expect(strict('').scratch).toEqual({ scale: 200, lowmem: 0, global: 0, pernode: 0 });
  });

  it.each([
    ['16M,256M,64M', 0, 16 * MIB, 256 * MIB, 64 * MIB],
    ['0,256M,0', 0, 0, 256 * MIB, 0],
    ['0x100000,1k,010', 0, MIB, 1024, 8],
    ['K,M,1', 0, 0, 0, 1],
    ['50%', 50, 0, 0, 0],
    ['+50%', 50, 0, 0, 0],
    ['4294967295%', 4294967295, 0, 0, 0],
  ])('reads %s', (value, scale, lowmem, global, pernode) => {
    for (const word of [`kho_scratch=${value}`, `kho-scratch="${value}"`]) {
      expect(strict(word)).toMatchObject({ scratch: { scale, lowmem, global, pernode }, warnings: [], unknown: [] });
    }
  });

  it.each([
    ['1G', 'expected <lowmem>,<global>,<per node>'],
    ['1G,1G', 'expected <lowmem>'],
    ['1G,1G,', 'expected <lowmem>'],
    ['1G,1G,1G,', "',' is left over"],
    ['1G,1G,1GB', "'B' is left over"],
    ['1G;1G;1G', 'expected <lowmem>'],
    [',1G,1G', 'expected <lowmem>'],
    ['0,0,0', 'at least one of the sizes must not be 0'],
    ['', 'expected <lowmem>'],
    ['%', 'expected a whole percentage'],
    ['1.5%', 'expected a whole percentage'],
    ['-1%', 'expected a whole percentage'],
    ['4294967296%', 'expected a whole percentage'],
    ['00000000200%', 'expected a whole percentage'],
    ['1G,1G,1%', 'expected a whole percentage'],
  ])('refuses %s, and in kernel mode keeps what was before', (value, message) => {
    const error = refusal(`kho=1 kho_scratch=${value}`);
    expect(error).toMatchObject({ code: 'KHO_EINVAL', details: { field: 'kho_scratch', offset: 6 } });
    expect(error.message).toContain(`kho_scratch=${value}: `);
    expect(error.message).toContain(message);
    const parameters = kernel(`kho_scratch=${value}`);
    expect(parameters.scratch.scale).toBe(200);
    expect(parameters.warnings).toHaveLength(1);
    expect(parameters.warnings[0]).toContain('scratch stays at 200 %');
    expect(kernel(`kho_scratch=1M,2M,3M kho_scratch=${value}`).scratch).toMatchObject({ scale: 0, global: 2 * MIB });
  });

  it('as 0 % falls back to the fixed sizes in the kernel, and is refused in a scenario', () => {
    expect(refusal('kho_scratch=0%').message).toContain('no scratch');
    expect(kernel('kho_scratch=1M,2M,3M kho_scratch=0%').scratch).toEqual({
      scale: 0,
      lowmem: MIB,
      global: 2 * MIB,
      pernode: 3 * MIB,
    });
    expect(kernel('kho_scratch=0%')).toMatchObject({
      scratch: { scale: 0, lowmem: 0 },
      warnings: [expect.any(String)],
    });
  });

  it('without a value is refused', () => {
    expect(refusal('kho_scratch').code).toBe('KHO_EINVAL');
  });
});

describe('reserve_mem=', () => {
  it.each([
    ['1M:4096:trace', { name: 'trace', size: MIB, align: 4096 }],
    ['12M:0x200000:a', { name: 'a', size: 12 * MIB, align: 2 * MIB }],
    ['1M:0:trace', { name: 'trace', size: MIB, align: 64 }],
    ['1M::trace', { name: 'trace', size: MIB, align: 64 }],
    ['1M:1:a:b', { name: 'a:b', size: MIB, align: 64 }],
    ['4K:4K:fifteen-letters', { name: 'fifteen-letters', size: 4096, align: 4096 }],
  ])('reads %s', (value, expected) => {
    expect(strict(`reserve-mem=${value}`)).toMatchObject({ reserveMem: [expected], warnings: [] });
  });

  it.each(['', '1M', '1M:4096', '0:4096:x', ':4096:x', '1M:x:y', '1M:4096:', '1M:4096x:y', '1M:64:sixteen-letters-'])(
    'refuses %s, and in kernel mode reserves nothing',
    (value) => {
      expect(refusal(`reserve_mem=${value}`)).toMatchObject({ code: 'KHO_EINVAL', details: { field: 'reserve_mem' } });
      expect(kernel(`reserve_mem=${value}`)).toMatchObject({
        reserveMem: [],
        warnings: [expect.stringContaining('nothing is reserved')],
      });
    },
  );

  it('refuses a name of spaces', () => {
    expect(refusal('reserve_mem="1M:4096:  "').message).toContain('not spaces alone');
    expect(strict('reserve_mem="1M:4096: x"').reserveMem[0].name).toBe(' x');
  });

  it('refuses a name twice', () => {
    expect(refusal('reserve_mem=1M:64:x reserve_mem=2M:64:x').code).toBe('KHO_EBUSY');
    expect(kernel('reserve_mem=1M:64:x reserve_mem=2M:64:x').reserveMem).toEqual([{ name: 'x', size: MIB, align: 64 }]);
  });

  it('refuses the ninth', () => {
    const words = [...Array(RESERVE_MEM_MAX_ENTRIES + 1).keys()].map((index) => `reserve_mem=4K:4K:n${index}`);
    expect(strict(words.slice(1).join(' ')).reserveMem).toHaveLength(8);
    expect(refusal(words.join(' ')).message).toContain('no more room');
    expect(kernel(words.join(' ')).reserveMem.map(({ name }) => name)).not.toContain('n8');
  });

  it('with an alignment that is no power of two is refused in a scenario; the kernel has no such check', () => {
    expect(refusal('reserve_mem=1M:3:x').message).toContain('no power of two');
    expect(kernel('reserve_mem=1M:3:x')).toMatchObject({ reserveMem: [{ align: 64 }], warnings: [expect.any(String)] });
    expect(kernel('reserve_mem=1M:100:x').reserveMem[0].align).toBe(100);
  });

  it('warns of bytes that are not preserved, being less than a page', () => {
    expect(strict('reserve_mem=5000:64:x').warnings).toEqual([
      'reserve_mem=5000:64:x: only the whole pages of its 5000 bytes are preserved',
    ]);
  });
});

it('leaves the words of others alone', () => {
  expect(strict('console=ttyS0,115200 kho=on quiet khoscratch=1 reserve_mem -- kho=off')).toEqual({
    kho: true,
    scratch: { scale: 200, lowmem: 0, global: 0, pernode: 0 },
    reserveMem: [],
    warnings: [],
    unknown: ['console=ttyS0,115200', 'quiet', 'khoscratch=1', 'reserve_mem'],
  });
});
