import { expect, test } from 'vitest';
import { ChildIndex } from '#dist/workers/child-index.js';
import { hashName, packName } from '#dist/workers/packed-name.js';

/** Finds the child, or adds it as `ref`. */
function open(index: ChildIndex, words: Int32Array, parent: number, name: number, ref: number): number {
  const found = index.find(words, parent, name);
  if (found !== 0) return found;
  index.insert(ref, name);
  return ref;
}

test('names below different parents are different, even where their hashes are equal', () => {
  const words = new Int32Array(4);
  packName(words, 0, 'abc');
  // One word is hashed as (parent's part) xor word, so a word that makes up for another parent's part has the same hash.
  const part = (parent: number) => Math.imul(parent + 1, 0x9e3779b1);
  let parent = 1;
  const other = () => (words[0] as number) ^ part(0) ^ part(parent);
  while (other() >>> 24 !== 0) parent++;
  words[2] = other();
  expect(hashName(words, 2, parent)).toBe(hashName(words, 0, 0));
  const index = new ChildIndex();
  expect(open(index, words, 0, 0, 5)).toBe(5);
  expect(open(index, words, parent, 2, 6)).toBe(6);
  expect([open(index, words, 0, 0, 7), open(index, words, parent, 2, 7)]).toEqual([5, 6]);
  expect([index.find(words, 0, 2), index.find(words, parent, 0)]).toEqual([0, 0]);
});

test('different names below one parent are different, even where their hashes are equal', () => {
  const words = new Int32Array(4);
  // The state after the first word shows as the hash of a name that ends there, were it not that it would not end: so it
  // is computed here once more.
  const after = (word: number) => {
    const hash = Math.imul(Math.imul(1, 0x9e3779b1) ^ word, 0x85ebca6b);
    return hash ^ (hash >>> 15);
  };
  packName(words, 0, 'abcdxyz');
  let first = 0x41414141;
  const last = () => after(words[0] as number) ^ (words[1] as number) ^ after(first);
  while (last() >>> 24 !== 0) first++;
  words[2] = first;
  words[3] = last();
  expect(hashName(words, 2, 0)).toBe(hashName(words, 0, 0));
  const index = new ChildIndex();
  expect(open(index, words, 0, 0, 1)).toBe(1);
  expect(open(index, words, 0, 2, 2)).toBe(2);
  expect([open(index, words, 0, 0, 3), open(index, words, 0, 2, 3)]).toEqual([1, 2]);
});

test('a shard finds nothing of the one before, however many nodes that had', () => {
  const words = new Int32Array(8 * 2000);
  for (let node = 0; node < 2000; node++) packName(words, node * 8, `node${node}`);
  const index = new ChildIndex();
  for (const count of [2000, 10, 0, 300, 2000]) {
    index.clear();
    for (let node = 0; node < count; node++) expect(open(index, words, 0, node * 8, node + 1)).toBe(node + 1);
    for (let node = 0; node < 2000; node++) {
      expect(index.find(words, 0, node * 8)).toBe(node < count ? node + 1 : 0);
    }
  }
});
