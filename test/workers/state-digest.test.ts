import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { stateDigest } from '#dist/workers/state-digest.js';

function refused(message: string) {
  return expect.objectContaining({ code: 'KHO_EINVAL', message: `${message}; a snapshot is plain data` });
}

describe('equal data has equal digests', () => {
  test('pinned, as both sides of a handover may be processes of different releases', () => {
    expect(stateDigest({ mtu: 1500, mac: Uint8Array.of(2, 0), rx: 1n, up: true, peer: null, name: 'eth0' })).toBe(
      'fe64805dd1d1ebaecaa6a6c0b51161b4534d0739b02cb08c2507c24a73f93474',
    );
  });

  test('whatever the order in which the keys of objects were assigned', () => {
    expect(stateDigest({ a: 1, b: { c: 2, d: 3 } })).toBe(stateDigest({ b: { d: 3, c: 2 }, a: 1 }));
    expect(stateDigest(Object.assign(Object.create(null), { a: 1 }))).toBe(stateDigest({ a: 1 }));
  });

  test('also of what went through a structured clone', () => {
    // fc.anything makes Uint8Array and its kin, Maps, Sets, bigints, null prototypes; no class that a clone would lose.
    const data = fc.anything({
      withBigInt: true,
      withMap: false,
      withSet: true,
      withTypedArray: true,
      withNullPrototype: true,
    });
    fc.assert(
      fc.property(data, (value) => {
        expect(stateDigest(structuredClone(value))).toBe(stateDigest(value));
      }),
    );
  });

  test('wherever in a buffer the bytes lie, in shared memory too', () => {
    const shared = new Uint8Array(new SharedArrayBuffer(8), 3, 2);
    shared.set([7, 9]);
    expect(stateDigest(shared)).toBe(stateDigest(Uint8Array.of(7, 9)));
  });
});

test('data that differs in value, type, length or place has different digests', () => {
  const different: unknown[] = [
    null,
    undefined,
    true,
    false,
    0,
    -0,
    1,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    0n,
    1n,
    '',
    '0',
    '1',
    'null',
    'n1;',
    [],
    [[]],
    [1],
    [1, 2],
    [2, 1],
    [[1], 2],
    [[1, 2]],
    ['1;n2'],
    ['a', 'b'],
    ['ab', ''],
    [undefined],
    [null],
    {},
    { a: 1 },
    { b: 1 },
    { a: { b: 1 } },
    { a: 1, b: 1 },
    { a: undefined },
    new Map(),
    new Map([['a', 1]]),
    new Map([
      ['a', 1],
      ['b', 2],
    ]),
    new Map([
      ['b', 2],
      ['a', 1],
    ]),
    new Set(),
    new Set(['a']),
    new Set(['a', 'b']),
    new Set(['b', 'a']),
    new Uint8Array(0),
    new Uint8Array(4),
    new Uint8Array(8),
    new Uint32Array(1),
    new BigUint64Array(1),
    new DataView(new ArrayBuffer(4)),
    'ä',
    'a\u0308',
  ];
  const digests = different.map(stateDigest);
  expect(digests.every((digest) => /^[0-9a-f]{64}$/.test(digest))).toBe(true);
  expect(new Set(digests).size).toBe(different.length);
});

describe('what is no plain data is refused', () => {
  class Ring {}

  test.each([
    ['a function', { rx: { handler: () => 0 } }, 'the snapshot.rx.handler is a function'],
    ['a symbol', [Symbol('s')], 'the snapshot[0] is a symbol'],
    ['a date', [1, new Date(0)], 'the snapshot[1] is an instance of Date'],
    ['an instance of a class', { ring: new Ring() }, 'the snapshot.ring is an instance of Ring'],
    ['a promise', Promise.resolve(1), 'the snapshot is an instance of Promise'],
    ['a raw buffer', new ArrayBuffer(4), 'the snapshot is an instance of ArrayBuffer'],
    ['something in a map', new Map([['tx', new Ring()]]), 'the snapshot.get(tx) is an instance of Ring'],
    ['a key of a map', new Map([[new Ring(), 1]]), 'a key of the snapshot is an instance of Ring'],
    ['an element of a set', new Set([new Ring()]), 'an element of the snapshot is an instance of Ring'],
  ])('%s, with its place', (_, value, message) => {
    expect(() => stateDigest(value)).toThrow(refused(message));
  });
});
