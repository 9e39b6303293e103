import type { NodeRef } from './layout.js';

/** '@' in each byte of a word. */
const AT_SIGNS = 0x40404040;

/** Packs ASCII text into words, four characters each, NUL-padded. */
export function packText(words: Int32Array, text: string, at: number, textWords: number): void {
  const length = text.length;
  for (let word = 0, character = 0; word < textWords; word++, character += 4) {
    let packed = character < length ? text.charCodeAt(character) : 0;
    if (character + 1 < length) packed |= text.charCodeAt(character + 1) << 8;
    if (character + 2 < length) packed |= text.charCodeAt(character + 2) << 16;
    if (character + 3 < length) packed |= text.charCodeAt(character + 3) << 24;
    words[at + word] = packed;
  }
}

/** A hash of the first `length` characters that are packed at `at`. */
export function hashText(words: Int32Array, at: number, length: number, seed: number): number {
  let hash = Math.imul(seed, 0x9e3779b1);
  const last = at + (length >>> 2);
  for (let word = at; word < last; word++) hash = mix(hash ^ words[word]);
  if ((length & 3) !== 0) hash = mix(hash ^ (words[last] & ((1 << ((length & 3) * 8)) - 1)));
  hash = Math.imul(hash, 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) | 0;
}

/**
 * Where to look for a node first; `hash` is that of its name but for the last two characters.
 *
 * The table is large, and one that is looked at all over misses the cache for every node; so what is opened together
 * stands together: names that differ only in their last two characters are neighbours, and so are nodes of one name whose
 * parents are (their records are at least eight words apart, so that each has a slot). That may crowd, so only a few slots
 * there are tried before the place by the whole hash.
 */
export function nearPlace(parent: NodeRef, name: string, hash: number): number {
  const { length } = name;
  const last = name.charCodeAt(length - 1) & 31;
  const lastButOne = length > 1 ? name.charCodeAt(length - 2) & 31 : 0;
  return (hash + (lastButOne << 5) + last + (parent >> 3)) | 0;
}

/** Where to look for it next: the place by the whole name and the parent. */
export function farPlace(parent: NodeRef, name: string, hash: number): number {
  const { length } = name;
  const ending = (name.charCodeAt(length - 2) << 8) | name.charCodeAt(length - 1);
  return mix(mix(mix(hash ^ ending) ^ parent) ^ 0x27d4eb2f);
}

/** Whether two packed texts of so many words are the same. */
export function sameText(words: Int32Array, a: number, b: number, textWords: number): boolean {
  for (let word = 0; word < textWords; word++) if (words[a + word] !== words[b + word]) return false;
  return true;
}

/** Whether the packed text has an '@': a node's name has one before its unit address. */
export function hasAtSign(words: Int32Array, at: number, length: number): boolean {
  const end = at + ((length + 3) >>> 2);
  for (let word = at; word < end; word++) {
    const differs = words[word] ^ AT_SIGNS;
    if (((differs - 0x01010101) & ~differs & 0x80808080) !== 0) return true; // one of the four bytes is 0
  }
  return false;
}

function mix(hash: number): number {
  const product = Math.imul(hash, 0x85ebca6b);
  return product ^ (product >>> 15);
}
