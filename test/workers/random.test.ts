import { describe, expect, test } from 'vitest';
import { Random } from '#dist/workers/random.js';

/** `count` words of a seed. */
function words(seed: string, count: number): number[] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => random.u32());
}

/** sfc32 and the mixing of its seed once more, in 64-bit arithmetic cut to 32 bits: shares nothing with the source. */
function oracle(seed: string, count: number): number[] {
  const cut = (value: bigint) => value & 0xffffffffn;
  let hash = 1779033703n ^ BigInt(seed.length);
  for (const character of seed) {
    hash = cut((hash ^ BigInt(character.charCodeAt(0))) * 3432918353n);
    hash = cut(hash << 13n) | (hash >> 19n);
  }
  const mixed = () => {
    hash = cut((hash ^ (hash >> 16n)) * 2246822507n);
    hash = cut((hash ^ (hash >> 13n)) * 3266489909n);
    hash ^= hash >> 16n;
    return hash;
  };
  let [a, b, c, counter] = [mixed(), mixed(), mixed(), 1n];
  const output: number[] = [];
  for (let round = 0; round < 12 + count; round++) {
    const sum = cut(a + b + counter++);
    a = b ^ (b >> 9n);
    b = cut(c + (c << 3n));
    c = cut((cut(c << 21n) | (c >> 11n)) + sum);
    output.push(Number(sum));
  }
  return output.slice(12);
}

describe('the sequence of a seed', () => {
  test.each([
    ['', [0xca6a7c6b, 0x99fd89d3, 0x90dc4832, 0x970cf878]],
    ['1/netdevsim/netdevsim0/', [0x3cac02c6, 0x76cc9126, 0x458c1399, 0x0d0712da]],
    ['1/netdevsim/netdevsim0/queue1', [0xc3b2d15d, 0x16da0749, 0xc3b10965, 0x7c3ae330]],
    ['42', [0x74505da9, 0x989bdc98, 0x61fe4233, 0xd317e5dc]],
  ])('of %j is pinned: what is handed over depends on it', (seed, expected) => {
    expect(words(seed, 4)).toEqual(expected);
  });

  test('is sfc32, computed the long way', () => {
    for (const seed of ['', 'a', 'ab', '7/kvm/vm0/vcpu3', 'x'.repeat(300)]) {
      expect(words(seed, 200)).toEqual(oracle(seed, 200));
    }
  });

  test('is the same from each generator, and another for a seed that differs in one character', () => {
    expect(words('1/a/a0/', 50)).toEqual(words('1/a/a0/', 50));
    const [one, other] = [words('1/a/a0/', 50), words('1/a/a1/', 50)];
    expect(one.filter((word, index) => word === other[index])).toEqual([]);
  });
});

describe('what is derived from the words', () => {
  test('takes them in order: high half first, bytes little-endian and cut to length', () => {
    const [first, second] = words('seed', 2);
    expect(new Random('seed').u64()).toBe((BigInt(first) << 32n) | BigInt(second));
    const bytes = Buffer.alloc(8);
    bytes.writeUInt32LE(first, 0);
    bytes.writeUInt32LE(second, 4);
    expect([...new Random('seed').bytes(7)]).toEqual([...bytes.subarray(0, 7)]);
    expect(new Random('seed').bytes(0)).toHaveLength(0);
  });

  test('below() reaches every value under its limit and no other', () => {
    const random = new Random('below');
    const seen = new Set(Array.from({ length: 1000 }, () => random.below(7)));
    expect([...seen].sort()).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(new Random('seed').below(2 ** 32)).toBe(words('seed', 1)[0]);
    expect(new Random('seed').below(1)).toBe(0);
  });

  test('pick() gives each of the values, oneIn() is true about as often as it says', () => {
    const random = new Random('pick');
    const picks = new Set(Array.from({ length: 200 }, () => random.pick(['a', 'b', 'c'])));
    expect([...picks].sort()).toEqual(['a', 'b', 'c']);
    const hits = Array.from({ length: 8000 }, () => random.oneIn(8)).filter(Boolean).length;
    expect(hits).toBeGreaterThan(850);
    expect(hits).toBeLessThan(1150);
    expect(random.oneIn(1)).toBe(true);
  });
});
