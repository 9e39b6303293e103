/**
 * Node names as they stand in a struct block: NUL-terminated and NUL-padded, four characters a word. The words are those
 * of a little-endian machine, as property values are.
 */

/** Words that a name of `length` characters takes. */
export function packedWords(length: number): number {
  return (length >>> 2) + 1;
}

/** Packs an ASCII name into `words` at `start`. */
export function packName(words: Int32Array, start: number, name: string): void {
  const { length } = name;
  let at = start;
  let index = 0;
  for (; index + 4 <= length; index += 4) {
    words[at++] =
      name.charCodeAt(index) |
      (name.charCodeAt(index + 1) << 8) |
      (name.charCodeAt(index + 2) << 16) |
      (name.charCodeAt(index + 3) << 24);
  }
  let last = 0;
  for (let shift = 0; index < length; index++, shift += 8) last |= name.charCodeAt(index) << shift;
  words[at] = last;
}

/** Whether the word of a packed name is its last: only there the fourth character is a NUL. */
export function endsName(word: number): boolean {
  return word >>> 24 === 0;
}

/** A hash of the packed name at `start` and of `seed`. Each step can be undone, so two seeds never give one name the same hash. */
export function hashName(words: Int32Array, start: number, seed: number): number {
  let hash = Math.imul(seed + 1, 0x9e3779b1);
  for (let at = start; ; at++) {
    const word = words[at];
    hash = Math.imul(hash ^ word, 0x85ebca6b);
    hash ^= hash >>> 15;
    if (endsName(word)) return hash;
  }
}

export function sameName(words: Int32Array, a: number, b: number): boolean {
  for (let at = 0; ; at++) {
    if (words[a + at] !== words[b + at]) return false;
    if (endsName(words[a + at])) return true;
  }
}

/** Words of the packed name at `start`. */
export function wordsOfName(words: Int32Array, start: number): number {
  let at = start;
  while (!endsName(words[at])) at++;
  return at + 1 - start;
}

/** Kinds of names as bits: only where children of one node have both, libfdt could take one for another. */
const WITHOUT_UNIT_ADDRESS = 1;
const WITH_UNIT_ADDRESS = 2;
export const MIXED_KINDS = WITHOUT_UNIT_ADDRESS | WITH_UNIT_ADDRESS;

/** The kind of the packed name at `start`. */
export function kindOfName(words: Int32Array, start: number): number {
  for (let at = start; ; at++) {
    // Four characters at once: exclusive-or turns an '@' into a zero byte, and only a zero byte borrows into its highest bit.
    const zeroes = words[at] ^ 0x40404040;
    if (((zeroes - 0x01010101) & ~zeroes & 0x80808080) !== 0) return WITH_UNIT_ADDRESS;
    if (endsName(words[at])) return WITHOUT_UNIT_ADDRESS;
  }
}

/** The text of the packed name at `start`. */
export function unpackName(words: Int32Array, start: number): string {
  let name = '';
  for (let at = start * 4; ; at++) {
    const code = (words[at >>> 2] >>> ((at & 3) * 8)) & 0xff;
    if (code === 0) return name;
    name += String.fromCharCode(code);
  }
}
