/**
 * 32-bit digests of 64-byte lines of memory, in plain JavaScript over words: the four lanes of xxHash's XXH32, merged,
 * without its final mixing, which is a bijection and tells nothing more apart.
 *
 * Every step of a lane and of the merge is a bijection in each of its inputs, so a change within one aligned word of a line
 * is always seen. Other changes are missed with a chance of about one in 2^32. Against somebody who chooses the bytes it
 * protects nothing.
 *
 * Digests are compared on the machine that made them: words are read in its own byte order.
 */

/** Words in a line, lines in a page. */
export const WORDS_PER_LINE = 16;
export const LINES_PER_PAGE = 64;
/** Bytes in a line. */
export const LINE_SIZE = WORDS_PER_LINE * 4;

const PRIME_1 = 0x9e3779b1 | 0;
const PRIME_2 = 0x85ebca77 | 0;
const LANE_1 = (PRIME_1 + PRIME_2) | 0;
const LANE_2 = PRIME_2;
const LANE_3 = 0;
const LANE_4 = -PRIME_1 | 0;

function round(lane: number, word: number): number {
  const mixed = (lane + Math.imul(word, PRIME_2)) | 0;
  return Math.imul((mixed << 13) | (mixed >>> 19), PRIME_1);
}

/** The digest of the line that begins at `words[at]`. */
export function lineDigest(words: Int32Array, at: number): number {
  let a = round(LANE_1, words[at]);
  let b = round(LANE_2, words[at + 1]);
  let c = round(LANE_3, words[at + 2]);
  let d = round(LANE_4, words[at + 3]);
  a = round(a, words[at + 4]);
  b = round(b, words[at + 5]);
  c = round(c, words[at + 6]);
  d = round(d, words[at + 7]);
  a = round(a, words[at + 8]);
  b = round(b, words[at + 9]);
  c = round(c, words[at + 10]);
  d = round(d, words[at + 11]);
  a = round(a, words[at + 12]);
  b = round(b, words[at + 13]);
  c = round(c, words[at + 14]);
  d = round(d, words[at + 15]);
  const rotated = ((a << 1) | (a >>> 31)) + ((b << 7) | (b >>> 25)) + ((c << 12) | (c >>> 20));
  return (rotated + ((d << 18) | (d >>> 14))) | 0;
}

/** Digests `lines` lines from `words[at]` on into `digests[to]` and what follows. */
export function digestLines(words: Int32Array, at: number, digests: Int32Array, to: number, lines: number): void {
  for (let line = 0; line < lines; line++) digests[to + line] = lineDigest(words, at + line * WORDS_PER_LINE);
}

/** The first of `lines` lines whose digest is not the one in `digests`, counted from 0; -1 if all are. */
export function firstDifferentLine(
  words: Int32Array,
  at: number,
  digests: Int32Array,
  from: number,
  lines: number,
): number {
  for (let line = 0; line < lines; line++) {
    if (digests[from + line] !== lineDigest(words, at + line * WORDS_PER_LINE)) return line;
  }
  return -1;
}
