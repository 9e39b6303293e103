/** Words that can be added up before the sum, exact up to 2^53, must be folded. */
const WORDS_PER_FOLD = 2 ** 20;
const ONES = 2 ** 32 - 1;

/**
 * The 32-bit ones'-complement sum of `bytes` added to `sum`, as csum_partial() of x86-64 gives it: little-endian words
 * added with end-around carry, the last padded with zeros. It is what lib/test_kho.c keeps; arm64 folds each buffer to
 * 16 bits first, and gives another number.
 *
 * A sum over several buffers is chained: each begins with what the last returned. A buffer whose length is no multiple
 * of 4 is padded then, too. 0 comes out only if `sum` and all bytes are 0; other multiples of 2^32 - 1 give 2^32 - 1.
 */
export function csumPartial(bytes: Uint8Array, sum: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const whole = bytes.length - (bytes.length % 4);
  let total = sum;
  for (let at = 0; at < whole; ) {
    const end = Math.min(whole, at + 4 * WORDS_PER_FOLD);
    for (; at < end; at += 4) total += view.getUint32(at, true);
    total = fold(total);
  }
  for (let at = whole; at < bytes.length; at++) total += bytes[at] * 2 ** (8 * (at - whole));
  return fold(total);
}

/** The number in [0, 2^32) that ones'-complement addition of its words would have given. */
function fold(total: number): number {
  return total === 0 ? 0 : ((total - 1) % ONES) + 1;
}
