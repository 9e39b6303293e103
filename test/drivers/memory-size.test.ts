import { describe, expect, it } from 'vitest';
import { memorySize } from '#dist/drivers/memory-size.js';

describe('an amount of memory', () => {
  const schema = memorySize({ min: 4096, max: 2 ** 31 });

  it.each([
    [8192, 8192],
    ['8192', 8192],
    ['12K', 12288],
    ['6M', 6 * 2 ** 20],
    ['2G', 2 ** 31],
  ])('%o is %i bytes', (text, bytes) => expect(schema.parse(text)).toBe(bytes));

  it('a fraction is told that the number is to be whole', () => {
    const { error } = schema.safeParse('1.5G');
    expect(error?.message).toContain('expected bytes, or a whole number with K, M, G or T');
  });

  it.each([0, 4097, '5', '3G', '6m', '-4K', '1.5M', '', null])('%o is refused', (value) => {
    expect(schema.safeParse(value).success).toBe(false);
  });
});
