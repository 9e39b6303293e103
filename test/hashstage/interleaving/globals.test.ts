import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { exploreAll } from './explore.js';
import { type Litmus, type LitmusThread, litmus } from './litmus.js';

type Arrays = { words: Int32Array; bytes: Uint8Array; atomics: typeof Atomics };

/** Runs `use` alone on simulated and on real shared memory; returns what it returned on each. */
function onBoth(use: (arrays: Arrays) => unknown): { simulated: unknown; real: unknown } {
  const buffer = new SharedArrayBuffer(32);
  const real = use({ words: new Int32Array(buffer), bytes: new Uint8Array(buffer), atomics: Atomics });
  const { results, finding } = exploreAll(litmus((machine: Litmus) => use(machine)));
  expect(finding).toBeUndefined();
  return { simulated: JSON.parse([...results][0] ?? '{}').a, real: JSON.parse(JSON.stringify(real)) };
}

const ATOMICS = ['load', 'store', 'add', 'sub', 'and', 'or', 'xor', 'exchange', 'compareExchange'] as const;
const small = fc.integer({ min: 0, max: 7 });
const value = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const step = fc.oneof(
  fc.record({
    what: fc.constant('atomic' as const),
    name: fc.constantFrom(...ATOMICS),
    at: small,
    value,
    other: value,
  }),
  fc.record({ what: fc.constant('set' as const), at: small, values: fc.array(value, { maxLength: 5 }) }),
  fc.record({
    what: fc.constantFrom('fill', 'copyWithin', 'own'),
    at: small,
    from: fc.integer({ min: -8, max: 8 }),
    value,
  }),
  fc.record({ what: fc.constantFrom('element', 'byte', 'slice', 'subarray'), at: small, value }),
);

test('an array over simulated memory is as one over real memory, whatever method is used', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const { simulated, real } = onBoth(({ words, bytes, atomics }) => {
        const seen: unknown[] = [words.length, bytes.byteLength, words.BYTES_PER_ELEMENT, words instanceof Int32Array];
        for (const step of steps) {
          if (step.what === 'atomic') {
            const array = step.value % 2 === 0 ? words : bytes;
            const operation = atomics[step.name] as (...operands: unknown[]) => number;
            seen.push(
              operation(array, step.at, step.name === 'compareExchange' ? step.other % 3 : step.value, step.other),
            );
          } else if (step.what === 'set') {
            const fits = step.values.slice(0, 8 - step.at);
            words.set(step.at % 2 === 0 ? fits : Int32Array.from(fits), step.at);
          } else if (step.what === 'fill') words.fill(step.value as number, step.from, step.at);
          else if (step.what === 'copyWithin') words.copyWithin(step.at, step.from);
          else if (step.what === 'own') bytes.set(bytes.subarray(step.at, step.at + 9), 8 - step.at);
          else if (step.what === 'element') words[step.at] = step.value;
          else if (step.what === 'byte') bytes[4 * step.at + 1] = step.value;
          else if (step.what === 'slice')
            seen.push([...words.slice(step.at, -1)], bytes.subarray(3).slice(-5, 8).length);
          else {
            const part = bytes.subarray(2).subarray(step.at, 20);
            part[1] = step.value;
            seen.push(part.byteOffset, part.length, [...part.subarray(-3)]);
          }
        }
        return [...seen, ...words, ...bytes];
      });
      expect(simulated).toEqual(real);
    }),
    { numRuns: 300 },
  );
});

describe('every access is seen', () => {
  const uses: Record<string, (machine: Litmus) => unknown> = {
    'an element read': ({ words }) => words[1],
    'an element written': ({ words }) => {
      words[1] = 1;
    },
    'an element changed': ({ words }) => words[1]++,
    'set()': ({ words }) => words.set([1, 2, 3], 0),
    'set() from a shared array': ({ words }) => new Int32Array(8).set(words),
    'fill()': ({ words }) => words.fill(0),
    'copyWithin()': ({ words }) => words.copyWithin(4, 0, 2),
    'slice()': ({ words }) => words.slice(0, 3),
    'subarray()': ({ words }) => words.subarray(1)[0],
    spreading: ({ words }) => [...words],
    destructuring: ({ words: [, second] }) => second,
    'for of': ({ words }) => {
      for (const word of words) if (word === 5) return word;
      return 0;
    },
    'Array.from()': ({ words }) => Array.from(words),
    'a private copy': ({ words, globals }) => new globals.Int32Array(words)[1],
    'a byte of the word': ({ bytes }) => bytes[7],
    'the bytes around': ({ bytes }) => bytes.subarray(4, 6).set([1, 2]),
    'a 64-bit element': ({ words, globals }) =>
      String(new (globals.BigInt64Array as typeof BigInt64Array)(words.buffer)[0]),
  };
  for (const [name, use] of Object.entries(uses)) {
    test(name, () => {
      const write: LitmusThread = ({ words }) => {
        words[1] = 7;
      };
      const other: LitmusThread = ({ words }) => {
        words[3 + 4] = 7;
      };
      for (const points of ['every', 'atomic'] as const) {
        expect(exploreAll(litmus(use, write), { points }).finding?.kind).toBe('race');
        expect(exploreAll(litmus(write, use), { points }).finding?.kind).toBe('race');
        expect(exploreAll(litmus(use), { points }).finding).toBeUndefined();
      }
      expect(exploreAll(litmus(({ words }) => words[1], other)).finding).toBeUndefined();
    });
  }
});

test('a race is told by who, what, where in the code and after which schedule', () => {
  const writeRecord: LitmusThread = ({ words }) => {
    function fillRecord() {
      words[5] = 1;
    }
    fillRecord();
  };
  const readRecord: LitmusThread = ({ words, atomics }) => {
    function useRecord() {
      return words[5];
    }
    return atomics.load(words, 0) + useRecord();
  };
  expect(exploreAll(litmus(writeRecord, readRecord)).finding).toEqual({
    kind: 'race',
    message: expect.stringMatching(
      /^'b' reads word 5 \(useRecord.*\), which 'a' writes \(fillRecord.*\), and nothing orders the two$/,
    ),
    schedule: 'a x1, b x2',
  });
});

test('code that catches everything is interrupted all the same', () => {
  const stubborn: LitmusThread = ({ words, atomics }) => {
    const seen: unknown[] = [];
    for (let round = 0; round < 3; round++) {
      try {
        seen.push(atomics.add(words, 0, 1));
      } catch {
        seen.push('caught');
      } finally {
        words[7] = words[6];
      }
    }
    return seen;
  };
  const other: LitmusThread = ({ words, atomics }) => atomics.add(words, 0, 10);
  const { results, finding } = exploreAll(litmus(stubborn, other));
  expect(finding).toBeUndefined();
  expect([...results].sort()).toEqual([
    '{"a":[0,1,12],"b":2}',
    '{"a":[0,1,2],"b":3}',
    '{"a":[0,11,12],"b":1}',
    '{"a":[10,11,12],"b":0}',
  ]);
});

test('an access beyond the end, an exception and a thread without end are findings', () => {
  const kindOf = (...threads: LitmusThread[]) => exploreAll(litmus(...threads)).finding?.kind;
  expect(kindOf(({ words }) => words[8])).toBe('outside');
  expect(kindOf(({ words }) => words[-1])).toBe('outside');
  expect(kindOf(({ words }) => words[0.5])).toBe('outside');
  expect(
    kindOf(({ bytes }) => {
      bytes[32] = 1;
    }),
  ).toBe('outside');
  expect(kindOf(({ words, atomics }) => atomics.load(words, 8))).toBe('exception');
  expect(kindOf(({ words }) => words.set([1, 2], 7))).toBe('exception');
  expect(
    kindOf(() => {
      throw new TypeError('no');
    }),
  ).toBe('exception');
  expect(
    kindOf(({ words, atomics }) => {
      while (atomics.load(words, 0) === 0) {}
    }),
  ).toBe('endless');
});

describe('what the checker cannot judge ends it', () => {
  const cases: Record<string, [LitmusThread, RegExp]> = {
    'Atomics.wait': [({ words, atomics }) => atomics.wait(words, 0, 0), /Atomics.wait is not simulated/],
    'Atomics.notify': [({ words, atomics }) => atomics.notify(words, 0), /Atomics.notify is not simulated/],
    'a DataView': [
      ({ words, globals }) => new (globals.DataView as typeof DataView)(words.buffer),
      /shared DataView is not simulated/,
    ],
    'a method that is not known': [({ words }) => words.indexOf(1), /'indexOf' of a shared Int32Array/],
    'a growable buffer': [
      ({ globals }) => Reflect.construct(globals.SharedArrayBuffer, [8, { maxByteLength: 16 }]),
      /growable shared memory/,
    ],
    WebAssembly: [
      ({ globals }) => Reflect.get(globals.WebAssembly as object, 'Memory'),
      /WebAssembly.Memory is not simulated/,
    ],
    'memory reserved by a thread': [({ globals }) => new globals.SharedArrayBuffer(8), /only setup may reserve/],
  };
  for (const [name, [use, message]] of Object.entries(cases)) {
    test(name, () => {
      expect(() => exploreAll(litmus(use))).toThrow(message);
      const caught: LitmusThread = (machine, received) => {
        try {
          return use(machine, received);
        } catch {
          return 'caught';
        }
      };
      expect(() => exploreAll(litmus(caught))).toThrow(message);
    });
  }

  test('a thread that does not repeat itself', () => {
    let counter = 0;
    const remembers: LitmusThread = ({ words, atomics }) => {
      atomics.store(words, 0, counter++);
      return atomics.load(words, 1);
    };
    const other: LitmusThread = ({ words, atomics }) => atomics.store(words, 1, atomics.load(words, 0));
    expect(() => exploreAll(litmus(remembers, other))).toThrow("'a' did not repeat itself at its access 1");
    let runs = 0;
    const caches: LitmusThread = ({ words, atomics }) =>
      runs++ > 0 ? 0 : atomics.load(words, 1) + atomics.load(words, 2);
    expect(() => exploreAll(litmus(caches, other))).toThrow("'a' did not repeat itself: it ended early");
  });
});
