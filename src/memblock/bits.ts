/**
 * Bitmaps in 32-bit words, bit i at `words[i >> 5]`, lowest bit first: the order that the kernel's bitmaps have in memory
 * on a little-endian machine. No bounds are checked: hot code.
 */

/** The number of the lowest set bit of a word that is not 0. */
export function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word);
}

/** Whether a bit is set. */
export function testBit(words: Int32Array, bit: number): boolean {
  return ((words[bit >>> 5] >>> (bit & 31)) & 1) === 1;
}

/** Sets one bit, not atomically. */
export function setBit(words: Int32Array, bit: number): void {
  words[bit >>> 5] |= 1 << (bit & 31);
}

/** Clears one bit, not atomically. */
export function clearBit(words: Int32Array, bit: number): void {
  words[bit >>> 5] &= ~(1 << (bit & 31));
}

/** Sets or clears the bits [start, start + count); `count` is at least 1. */
export function fillBits(words: Int32Array, start: number, count: number, value: boolean): void {
  const last = start + count - 1;
  const lastWord = last >>> 5;
  for (let index = start >>> 5; index <= lastWord; ) {
    let mask = -1;
    if (index === start >>> 5) mask &= -1 << (start & 31);
    if (index === lastWord) mask &= -1 >>> (31 - (last & 31));
    if (mask === -1) {
      const next = (last & 31) === 31 ? lastWord + 1 : lastWord;
      words.fill(value ? -1 : 0, index, next);
      index = next;
    } else {
      if (value) words[index] |= mask;
      else words[index] &= ~mask;
      index++;
    }
  }
}

/** The first bit in [from, end) that is `value`, or `end`. */
export function findBit(words: Int32Array, from: number, end: number, value: boolean): number {
  if (from >= end) return end;
  const flip = value ? 0 : -1;
  const lastWord = (end - 1) >>> 5;
  let index = from >>> 5;
  let word = (words[index] ^ flip) & (-1 << (from & 31));
  while (word === 0) {
    if (index === lastWord) return end;
    word = words[++index] ^ flip;
  }
  return Math.min(end, index * 32 + lowestBit(word));
}
