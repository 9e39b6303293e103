import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatBytes, formatDuration, formatSize, parseDuration, parseSize } from '#dist/cli/units.js';

test.each([
  ['4096', 4096],
  [4096, 4096],
  ['0', 0],
  ['1K', 1024],
  ['512M', 512 * 2 ** 20],
  ['2G', 2 ** 31],
  ['2g', 2 ** 31],
  ['1.5G', 1.5 * 2 ** 30],
  ['64T', 2 ** 46],
])('the size %s is %i bytes', (text, bytes) => {
  expect(parseSize(text)).toBe(bytes);
});

test.each([
  ['2GB', "'2GB' is not a size; write 2G (powers of 1024)"],
  ['2 GiB', "'2 GiB' is not a size; write 2G (powers of 1024)"],
  ['512 m', "'512 m' is not a size; write 512M (powers of 1024)"],
  ['2gigs', "'2gigs' is not a size; expected a size such as 2G, 512M or 4096 (powers of 1024)"],
  ['-1', "'-1' is not a size"],
  ['', "'' is not a size"],
  ['0.3K', "'0.3K' is not a whole number of bytes"],
  ['1.5', "'1.5' is not a whole number of bytes"],
  ['9000P', "'9000P' is larger than any address space"],
])('the size %j is refused with what would be right', (text, message) => {
  expect(() => parseSize(text)).toThrow(
    expect.objectContaining({ code: 'KHO_EINVAL', message: expect.stringContaining(message) }),
  );
});

test('formatSize is read back as exactly the same number of bytes', () => {
  expect([formatSize(2 ** 31), formatSize(1536 * 2 ** 20), formatSize(4097), formatSize(0)]).toEqual([
    '2G',
    '1536M',
    '4097',
    '0',
  ]);
  fc.assert(fc.property(fc.maxSafeNat(), (bytes) => parseSize(formatSize(bytes)) === bytes));
  fc.assert(fc.property(fc.nat(2 ** 20), (mebi) => parseSize(formatSize(mebi * 2 ** 20)) === mebi * 2 ** 20));
});

test.each([
  ['50ms', 50],
  ['1.5s', 1500],
  ['200us', 0.2],
  ['2 s', 2000],
  ['2min', 120_000],
  ['1h', 3_600_000],
])('the duration %s is %d milliseconds', (text, milliseconds) => {
  expect(parseDuration(text)).toBe(milliseconds);
});

test.each([
  ['50', "'50' has no unit; write 50ms or 50s"],
  ['50msec', "'50msec' has the unknown unit 'msec'; write 50ms"],
  ['50MS', "'50MS' has the unknown unit 'MS'; write 50ms"],
  ['200µs', "'200µs' has the unknown unit 'µs'; write 200us"],
  ['3 days', "'3 days' has the unknown unit 'days'; expected one of h, min, s, ms, us"],
  ['fast', "'fast' is not a duration; expected a duration such as 50ms, 1.5s or 200us"],
  ['-5ms', "'-5ms' is not a duration"],
])('the duration %j is refused with what would be right', (text, message) => {
  expect(() => parseDuration(text)).toThrow(
    expect.objectContaining({ code: 'KHO_EINVAL', message: expect.stringContaining(message) }),
  );
});

test.each([
  [0, '0us'],
  [0.412, '412us'],
  [0.9996, '1.0ms'],
  [30.24, '30.2ms'],
  [999.94, '999.9ms'],
  [999.96, '1.000s'],
  [1234.4, '1.234s'],
  [59_999.6, '1min 0.000s'],
  [62_345, '1min 2.345s'],
  [3_723_000, '1h 2min 3s'],
])('%d ms is printed as %s', (milliseconds, text) => {
  expect(formatDuration(milliseconds)).toBe(text);
});

test.each([
  [0, '0 B'],
  [512, '512 B'],
  [4096, '4 KiB'],
  [64_172_851, '61.2 MiB'],
  [2 ** 31, '2 GiB'],
  [2 ** 20 - 1, '1.0 MiB'],
])('%d bytes are printed as %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});
