import fc from 'fast-check';
import { expect, test } from 'vitest';
import { hasAtSign, hashText, packText, sameText } from '#dist/hashstage/packed-text.js';

const text = fc.string({ unit: fc.constantFrom(...'@A?azZ09-._'), maxLength: 12 });
const wordsOf = (length: number) => (length + 4) >>> 2;

test('text is packed as its bytes with a NUL, and known by them, whatever was there before', () => {
  fc.assert(
    fc.property(text, text, fc.integer(), (a, b, before) => {
      const words = new Int32Array(16).fill(before);
      packText(words, a, 0, wordsOf(a.length));
      packText(words, b, 8, wordsOf(b.length));
      const bytes = Buffer.from(words.buffer);
      expect(bytes.toString('latin1', 0, wordsOf(a.length) * 4).replace(/\0+$/, '')).toBe(a);
      expect(bytes[a.length]).toBe(0);
      expect(hasAtSign(words, 0, a.length)).toBe(a.includes('@'));
      if (a.length === b.length) expect(sameText(words, 0, 8, wordsOf(a.length))).toBe(a === b);
      // The hash is that of the first characters alone, wherever they stand.
      let common = 0;
      while (common < Math.min(a.length, b.length) && a[common] === b[common]) common++;
      expect(hashText(words, 0, common, 7)).toBe(hashText(words, 8, common, 7));
    }),
    { numRuns: 2000 },
  );
});
