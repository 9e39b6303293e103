import fc from 'fast-check';
import { expect, test } from 'vitest';
import { csumPartial } from '#dist/abi/index.js';

/** Ones'-complement addition of 32-bit numbers by its definition: the carry comes back in. */
function add(a: bigint, b: bigint): bigint {
  const sum = a + b;
  return (sum & 0xffffffffn) + (sum >> 32n);
}

function plain(bytes: Uint8Array, sum: number): number {
  const padded = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
  padded.set(bytes);
  const view = new DataView(padded.buffer);
  let total = BigInt(sum);
  for (let at = 0; at < padded.length; at += 4) total = add(total, BigInt(view.getUint32(at, true)));
  return Number(total);
}

const sum = fc.oneof(
  fc.constantFrom(0, 1, 0xffffffff, 0xfffffffe, 0x80000000),
  fc.integer({ min: 0, max: 0xffffffff }),
);
const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 200 }),
  fc.tuple(fc.integer({ max: 200, min: 0 }), fc.constantFrom(0, 0xff)).map(([n, byte]) => new Uint8Array(n).fill(byte)),
);

test('it is ones-complement addition, at every length and from every sum', () => {
  fc.assert(
    fc.property(bytes, sum, (data, from) => {
      expect(csumPartial(data, from)).toBe(plain(data, from));
    }),
  );
});

test('whole words may be split anywhere: the sum is chained', () => {
  fc.assert(
    fc.property(bytes, sum, fc.nat(50), (data, from, words) => {
      const cut = Math.min(words * 4, data.length - (data.length % 4));
      expect(csumPartial(data.subarray(cut), csumPartial(data.subarray(0, cut), from))).toBe(csumPartial(data, from));
    }),
  );
});

test('a page and 4 MiB of ones do not lose a carry', () => {
  for (const size of [4096, 4 * 2 ** 20]) {
    const ones = new Uint8Array(size).fill(0xff);
    expect(csumPartial(ones, 0)).toBe(0xffffffff);
    expect(csumPartial(ones, 1)).toBe(1);
    ones[size - 4] = 0xfe;
    expect(csumPartial(ones, 0)).toBe(0xfffffffe);
  }
});

test('nothing but zeros is 0', () => {
  expect(csumPartial(new Uint8Array(4096), 0)).toBe(0);
  expect(csumPartial(new Uint8Array(4096), 0xffffffff)).toBe(0xffffffff);
});

test('folded to 16 bits it is the Internet checksum of RFC 1071, section 3', () => {
  const folded = (value: number) => {
    const once = (value & 0xffff) + (value >>> 16);
    return (once & 0xffff) + (once >>> 16);
  };
  // The example's sum is ddf2 in network order; ours is the little-endian one.
  expect(folded(csumPartial(Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7), 0))).toBe(0xf2dd);
});
