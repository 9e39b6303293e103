import type { Memblock } from '#dist/memblock/memblock.js';

/** Two 32-bit digests of words, the same as those of driver.c. */
export class WordDigest {
  #first = 1;
  #second = 2;

  word(word: number): void {
    const first = Math.imul(this.#first ^ word, 0x9e3779b1);
    this.#first = first ^ (first >>> 15);
    const second = Math.imul(this.#second ^ word, 0x85ebca77);
    this.#second = second ^ (second >>> 13);
  }

  /** A number of 64 bits, low word first. */
  value(value: number): void {
    this.word(value | 0);
    this.word((value / 2 ** 32) | 0);
  }

  toString(): string {
    return [this.#first, this.#second].map((half) => (half >>> 0).toString(16).padStart(8, '0')).join('');
  }
}

/** Of both region arrays: their room, place and regions, and what the kernel counts as their bytes. */
export function digestOf(memblock: Memblock): string {
  const digest = new WordDigest();
  for (const type of [memblock.memory, memblock.reserved]) {
    digest.value(type.regions.length);
    digest.value(type.max);
    digest.value(type.totalSize);
    digest.value(type.arrayAddress ?? 0);
    for (const { base, size, flags, nid } of type.regions) {
      digest.value(base);
      digest.value(size);
      digest.word(flags);
      digest.word(nid);
    }
  }
  return digest.toString();
}

/** Both arrays in full, as driver.c prints them. */
export function arraysOf(memblock: Memblock): string {
  const hex = (value: number): string => value.toString(16);
  return [memblock.memory, memblock.reserved]
    .map(({ name, regions, max, totalSize, arrayAddress = 0 }) => {
      const head = `${name}(${hex(regions.length)}/${hex(max)},${hex(totalSize)},${hex(arrayAddress)})`;
      return (
        head + regions.map(({ base, size, flags, nid }) => `[${hex(base)}+${hex(size)},${hex(flags)},${nid}]`).join('')
      );
    })
    .join('');
}
