import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type ExhaustiveOptions, exploreAll, exploreAtRandom } from './explore.js';
import type { SimulatedGlobals } from './globals.js';
import { after, type Litmus, type LitmusThread, litmus } from './litmus.js';
import type { Program } from './program.js';

const WAYS: readonly ExhaustiveOptions[] = [
  { points: 'every', reduce: false },
  { points: 'every', reduce: true },
  { points: 'atomic', reduce: false },
  { points: 'atomic', reduce: true },
];

/** The results of all schedules, joined; the same whatever schedules are left out. */
function resultsOf(program: Program<SimulatedGlobals>): string[] {
  const found = WAYS.map((way) => {
    const { finding, results } = exploreAll(program, way);
    expect(finding).toBeUndefined();
    return [...results].map((json) => Object.values(JSON.parse(json)).join(' ')).sort();
  });
  for (const results of found) expect(results).toEqual(found[0]);
  return found[0] ?? [];
}

/** What is found, whatever schedules are left out. */
function findingOf(program: Program<SimulatedGlobals>): string | undefined {
  const kinds = WAYS.map((way) => exploreAll(program, way).finding?.kind);
  expect(new Set(kinds).size).toBe(1);
  expect(exploreAtRandom(program, { count: 500, seed: 1 }).finding?.kind).toBe(kinds[0]);
  return kinds[0];
}

test('a value published by an atomic store is read right or not at all; by a plain store it is a race', () => {
  const publish: LitmusThread = ({ words, atomics }) => {
    words[0] = 7;
    atomics.store(words, 1, 1);
    return '-';
  };
  const read: LitmusThread = ({ words, atomics }) => (atomics.load(words, 1) === 1 ? words[0] : 'none');
  expect(resultsOf(litmus(publish, read))).toEqual(['- 7', '- none']);
  const plainly: LitmusThread = ({ words }) => {
    words[0] = 7;
    words[1] = 1;
  };
  expect(findingOf(litmus(plainly, read))).toBe('race');
  expect(findingOf(litmus(publish, ({ words }) => (words[1] === 1 ? words[0] : 'none')))).toBe('race');
});

test('atomic accesses are sequentially consistent: of two threads that store and look, one sees the other', () => {
  const side =
    (mine: number, other: number): LitmusThread =>
    ({ words, atomics }) => {
      atomics.store(words, mine, 1);
      return atomics.load(words, other);
    };
  expect(resultsOf(litmus(side(0, 1), side(1, 0)))).toEqual(['0 1', '1 0', '1 1']);
});

test('an addition loses nothing, a load and a store may', () => {
  const add: LitmusThread = ({ words, atomics }) => {
    atomics.add(words, 0, 1);
    return '-';
  };
  const loadAndStore: LitmusThread = ({ words, atomics }) => {
    atomics.store(words, 0, atomics.load(words, 0) + 1);
    return '-';
  };
  const end = after(['a', 'b'], ({ words }) => words[0]);
  expect(resultsOf(litmus(add, add, end))).toEqual(['- - 2']);
  expect(resultsOf(litmus(loadAndStore, loadAndStore, end))).toEqual(['- - 1', '- - 2']);
});

test('a compare-and-swap is won by one; the loser is ordered after the winner, the winner not after the loser', () => {
  const claim =
    (me: number): LitmusThread =>
    ({ words, atomics }) => {
      words[me] = me;
      const found = atomics.compareExchange(words, 0, 0, me);
      return found === 0 ? 'won' : words[found];
    };
  expect(resultsOf(litmus(claim(1), claim(2)))).toEqual(['2 won', 'won 1']);
  const winnerReadsLoser: LitmusThread = ({ words, atomics }) =>
    atomics.compareExchange(words, 0, 0, 1) === 0 && atomics.load(words, 0) === 1 ? words[2] : 'lost';
  expect(findingOf(litmus(winnerReadsLoser, claim(2)))).toBe('race');
});

test('a thread that awaits another one is ordered after all it did, and receives what it returned', () => {
  const write: LitmusThread = ({ words }) => {
    words[0] = 7;
    return 'sent';
  };
  const read: LitmusThread = ({ words }, received) => `${received.a}: ${words[0]}`;
  expect(resultsOf(litmus(write, after(['a'], read)))).toEqual(['sent sent: 7']);
  expect(findingOf(litmus(write, read))).toBe('race');
  const other: LitmusThread = ({ words }) => words[0];
  expect(findingOf(litmus(write, after(['a'], read), other))).toBe('race');
});

test('each schedule is run once: as many as there are ways to interleave the accesses', () => {
  const steps =
    (count: number, word: number): LitmusThread =>
    ({ words, atomics }) => {
      for (let step = 0; step < count; step++) atomics.add(words, word, 1);
    };
  const count = (program: Program<SimulatedGlobals>, reduce: boolean) => {
    const { schedules, abandoned } = exploreAll(program, { points: 'every', reduce });
    return reduce ? schedules : [schedules, abandoned];
  };
  expect(count(litmus(steps(4, 0), steps(4, 0)), false)).toEqual([70, 0]);
  expect(count(litmus(steps(5, 0), steps(3, 0)), false)).toEqual([56, 0]);
  expect(count(litmus(steps(3, 0), steps(3, 0), steps(3, 0)), false)).toEqual([1680, 0]);
  // All on one word: no two schedules are equivalent. On words of their own: all are.
  expect(count(litmus(steps(4, 0), steps(4, 0)), true)).toBe(70);
  expect(count(litmus(steps(3, 0), steps(3, 0), steps(3, 0)), true)).toBe(1680);
  expect(count(litmus(steps(4, 0), steps(4, 1)), true)).toBe(1);
  expect(count(litmus(steps(3, 0), steps(3, 0), steps(3, 1)), true)).toBe(20);
});

test('random schedules are the same for the same seed, and reach what all schedules reach', () => {
  const claim: LitmusThread = ({ words, atomics }) => [1, 2, 3].map((value) => atomics.exchange(words, 0, value));
  const program = litmus(claim, claim);
  const once = exploreAtRandom(program, { count: 2000, seed: 3 });
  expect(exploreAtRandom(program, { count: 2000, seed: 3 })).toEqual(once);
  expect(once.results).toEqual(exploreAll(program).results);
  expect(once.distinct).toBeGreaterThan(15);
  expect(once.distinct).toBeLessThanOrEqual(20);
  expect([...exploreAtRandom(program, { count: 5, seed: 4 }).results]).not.toEqual([
    ...exploreAtRandom(program, { count: 5, seed: 5 }).results,
  ]);
});

// -- any small program, against an oracle that knows nothing of clocks, logs or repetition ------------------------------

/** One access; of those that write, the value. A thread's result is what its accesses returned. */
interface Op {
  readonly op: 'read' | 'write' | 'load' | 'store' | 'add' | 'compareExchange';
  readonly word: number;
  readonly value: number;
}

function perform({ words, atomics }: Litmus, { op, word, value }: Op): unknown {
  switch (op) {
    case 'read':
      return words[word];
    case 'write':
      words[word] = value;
      return '';
    case 'load':
      return atomics.load(words, word);
    case 'compareExchange':
      return atomics.compareExchange(words, word, 0, value);
    default:
      return atomics[op](words, word, value);
  }
}

/** All interleavings, one after the other, with happens-before as a relation between all pairs of accesses. */
function oracle(threads: readonly (readonly Op[])[]): { race: boolean; results: Set<string> } {
  const results = new Set<string>();
  let race = false;
  interface Event extends Op {
    readonly thread: number;
    readonly before: ReadonlySet<Event>;
    readonly writes: boolean;
    readonly atomic: boolean;
  }
  const visit = (
    events: readonly Event[],
    words: readonly number[],
    returned: readonly (readonly unknown[])[],
  ): void => {
    let ended = true;
    for (const [thread, ops] of threads.entries()) {
      const op = ops[events.filter((event) => event.thread === thread).length];
      if (op === undefined) continue;
      ended = false;
      const old = words[op.word] ?? 0;
      const atomic = op.op !== 'read' && op.op !== 'write';
      const writes = op.op !== 'read' && op.op !== 'load' && !(op.op === 'compareExchange' && old !== 0);
      const before = new Set<Event>();
      const follow = (event: Event | undefined) => {
        if (event !== undefined) for (const earlier of [event, ...event.before]) before.add(earlier);
      };
      follow(events.findLast((event) => event.thread === thread));
      const from = events.findLast((event) => event.word === op.word && event.writes);
      if (atomic && op.op !== 'store' && from?.atomic) follow(from);
      for (const event of events) {
        const racing = event.word === op.word && (event.writes || writes) && !(event.atomic && atomic);
        if (racing && event.thread !== thread && !before.has(event)) race = true;
      }
      const value = op.op === 'add' ? old + op.value : op.value;
      const result = op.op === 'write' ? '' : op.op === 'store' ? op.value : old;
      visit(
        [...events, { ...op, thread, before, writes, atomic }],
        words.map((word, index) => (writes && index === op.word ? value : word)),
        returned.map((list, index) => (index === thread ? [...list, result] : list)),
      );
    }
    if (ended) results.add(JSON.stringify(returned));
  };
  visit(
    [],
    [0, 0, 0],
    threads.map(() => []),
  );
  return { race, results };
}

const op = (ops: readonly Op['op'][]): fc.Arbitrary<Op> =>
  fc.record({ op: fc.constantFrom(...ops), word: fc.nat({ max: 2 }), value: fc.integer({ min: 1, max: 2 }) });

test('of any small program, each way of leaving schedules out finds a race if there is one, else all results', () => {
  const verdicts = { race: 0, none: 0 };
  const threads = fc.oneof(
    fc.array(fc.array(op(['load', 'store', 'add', 'compareExchange']), { maxLength: 3 }), {
      minLength: 2,
      maxLength: 3,
    }),
    fc.array(fc.array(op(['read', 'write', 'load', 'store', 'compareExchange']), { maxLength: 4 }), {
      minLength: 2,
      maxLength: 2,
    }),
  );
  fc.assert(
    fc.property(threads, (threads) => {
      const program = litmus(
        ...threads.map(
          (ops): LitmusThread =>
            (machine) =>
              ops.map((op) => perform(machine, op)),
        ),
      );
      const expected = oracle(threads);
      verdicts[expected.race ? 'race' : 'none']++;
      for (const way of WAYS) {
        const { finding, results } = exploreAll(program, way);
        expect(finding?.kind).toBe(expected.race ? 'race' : undefined);
        if (expected.race) continue;
        const found = [...results].map((json) => JSON.stringify(Object.values(JSON.parse(json)))).sort();
        expect(found).toEqual([...expected.results].sort());
      }
    }),
    { numRuns: 200, seed: 7 },
  );
  expect(verdicts.race).toBeGreaterThan(20);
  expect(verdicts.none).toBeGreaterThan(20);
});
