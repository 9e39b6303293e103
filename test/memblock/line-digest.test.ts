import fc from 'fast-check';
import { expect, test } from 'vitest';
import { digestLines, firstDifferentLine, lineDigest, WORDS_PER_LINE } from '#dist/memblock/line-digest.js';

const PRIME_1 = 2654435761n;
const PRIME_2 = 2246822519n;
const MASK = 0xffffffffn;

const word = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const line = fc.array(word, { minLength: WORDS_PER_LINE, maxLength: WORDS_PER_LINE });

/** The same in arbitrary precision, from the description of XXH32: four accumulators, stripes of 16 bytes, the merge. */
function plainDigest(words: readonly number[]): number {
  const rotate = (value: bigint, by: bigint): bigint => ((value << by) | (value >> (32n - by))) & MASK;
  const lanes = [PRIME_1 + PRIME_2, PRIME_2, 0n, -PRIME_1].map((lane) => lane & MASK);
  for (const [index, value] of words.entries()) {
    const lane = ((lanes[index % 4] as bigint) + (BigInt(value) & MASK) * PRIME_2) & MASK;
    lanes[index % 4] = (rotate(lane, 13n) * PRIME_1) & MASK;
  }
  const [a, b, c, d] = lanes as [bigint, bigint, bigint, bigint];
  return Number(BigInt.asIntN(32, rotate(a, 1n) + rotate(b, 7n) + rotate(c, 12n) + rotate(d, 18n)));
}

test('the digest of a line is that of the plain description, wherever the line stands', () => {
  fc.assert(
    fc.property(line, fc.nat(40), (words, at) => {
      const memory = new Int32Array(at + WORDS_PER_LINE + 3).fill(0x5a5a5a5a);
      memory.set(words, at);
      expect(lineDigest(memory, at)).toBe(plainDigest(words));
    }),
  );
});

test('a change within one word is always seen', () => {
  fc.assert(
    fc.property(line, fc.nat(WORDS_PER_LINE - 1), word, (words, changed, value) => {
      const memory = Int32Array.from(words);
      const before = lineDigest(memory, 0);
      memory[changed] = value;
      expect(lineDigest(memory, 0) === before).toBe(value === words[changed]);
    }),
  );
});

test('flipping the same bit of any two words is seen, the highest too', () => {
  const memory = new Int32Array(WORDS_PER_LINE);
  const before = lineDigest(memory, 0);
  for (let first = 0; first < WORDS_PER_LINE; first++) {
    for (let second = first + 1; second < WORDS_PER_LINE; second++) {
      for (let bit = 0; bit < 32; bit++) {
        memory[first] = 1 << bit;
        memory[second] = 1 << bit;
        expect(lineDigest(memory, 0), `words ${first} and ${second}, bit ${bit}`).not.toBe(before);
        memory[first] = 0;
        memory[second] = 0;
      }
    }
  }
});

test('the first line that differs is found, and none among equal ones', () => {
  fc.assert(
    fc.property(
      fc.array(line, { minLength: 1, maxLength: 9 }),
      fc.array(fc.nat(8), { maxLength: 3 }),
      (lines, touched) => {
        const memory = Int32Array.from(lines.flat());
        const digests = new Int32Array(lines.length + 1);
        digestLines(memory, 0, digests, 1, lines.length);
        expect(firstDifferentLine(memory, 0, digests, 1, lines.length)).toBe(-1);
        const changed = new Set(touched.filter((number) => number < lines.length));
        for (const number of changed) memory[number * WORDS_PER_LINE + 5] ^= 0x80;
        expect(firstDifferentLine(memory, 0, digests, 1, lines.length)).toBe(
          changed.size === 0 ? -1 : Math.min(...changed),
        );
      },
    ),
  );
});
