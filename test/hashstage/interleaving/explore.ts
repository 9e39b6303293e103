import { dependent } from './access.js';
import { Execution, type ExecutionSnapshot, type InterruptionPoints, type Scheduler } from './execution.js';
import type { Finding, Program } from './program.js';
import type { SimulatedThread } from './simulated-thread.js';

export interface Exploration {
  /** Schedules that were run to their end (or to the finding). */
  readonly schedules: number;
  /** Schedules that were given up, being equivalent to one that was run. */
  readonly abandoned: number;
  readonly finding: Finding | undefined;
  /** The different results of all threads that were seen, as JSON. */
  readonly results: ReadonlySet<string>;
}

export interface ExhaustiveOptions {
  /** Default `atomic`. */
  readonly points?: InterruptionPoints;
  /**
   * Leave out schedules that differ from one that was run only in the order of accesses that do not depend on one another
   * (sleep sets, Godefroid 1996); default true.
   */
  readonly reduce?: boolean;
}

/** A state in which several threads could go on, and which of them did. Sets of threads are bits by index. */
interface Choice {
  readonly state: ExecutionSnapshot;
  /** Threads that need not go on from here: what comes of it was seen. */
  readonly asleep: number;
  readonly ready: number;
  /** The threads that went on from here, the present one included. */
  tried: number;
}

/** Runs every schedule of a program, or until there is a finding. */
export function exploreAll<Module>(program: Program<Module>, options: ExhaustiveOptions = {}): Exploration {
  const { points = 'atomic', reduce = true } = options;
  const execution = new Execution(program, points);
  const { threads } = execution;
  const choices: Choice[] = [];
  const results = new Set<string>();
  let asleep = 0;
  let schedules = 0;
  let abandoned = 0;

  /** Of the sleeping threads, those whose next access does not depend on that of `chosen`. */
  const stillAsleep = (sleepers: number, chosen: SimulatedThread<Module>): number => {
    let left = 0;
    for (const thread of threads) {
      if ((sleepers & (1 << thread.index)) === 0 || thread === chosen) continue;
      if (thread.pending && chosen.pending && !dependent(thread.pending, chosen.pending)) left |= 1 << thread.index;
    }
    return left;
  };
  const choose = (chosen: SimulatedThread<Module>, sleepers: number): SimulatedThread<Module> => {
    asleep = reduce ? stillAsleep(sleepers, chosen) : 0;
    return chosen;
  };
  const lowest = (set: number): SimulatedThread<Module> => threads[31 - Math.clz32(set & -set)];

  const scheduler: Scheduler<Module> = {
    next(running) {
      let ready = 0;
      for (const thread of threads) if (thread.state === 'ready') ready |= 1 << thread.index;
      const awake = ready & ~asleep;
      if (awake === 0) return undefined;
      // To go on with the running thread costs nothing: another one must repeat what it did.
      const chosen = running !== undefined && (awake & (1 << running.index)) !== 0 ? running : lowest(awake);
      if ((awake & (awake - 1)) !== 0) {
        choices.push({ state: execution.snapshot(), asleep, ready: awake, tried: 1 << chosen.index });
      }
      return choose(chosen, asleep);
    },
  };

  let next = execution.finding === undefined ? scheduler.next(undefined) : undefined;
  for (;;) {
    execution.run(scheduler, next);
    if (execution.finding !== undefined || execution.allDone) {
      schedules++;
      if (execution.finding === undefined) results.add(JSON.stringify(execution.results()));
    } else abandoned++;
    let choice = choices.pop();
    while (choice !== undefined && choice.tried === choice.ready) choice = choices.pop();
    if (choice === undefined || execution.finding !== undefined) break;
    execution.restore(choice.state);
    next = lowest(choice.ready & ~choice.tried);
    const seen = choice.asleep | choice.tried;
    choice.tried |= 1 << next.index;
    choices.push(choice);
    choose(next, seen);
  }
  return { schedules, abandoned, finding: execution.finding, results };
}

/**
 * Runs `count` schedules of a program that has too many, or until there is a finding. The same seed gives the same
 * schedules. Each has its own inclination to switch threads, because some errors need many switches and some need few.
 */
export function exploreAtRandom<Module>(
  program: Program<Module>,
  { count, seed }: { count: number; seed: number },
): Exploration & { readonly distinct: number } {
  const execution = new Execution(program, 'atomic');
  const begin = execution.snapshot();
  const results = new Set<string>();
  const met = new Set<number>();
  const random = randomNumbers(seed);
  let schedules = 0;
  while (schedules < count && execution.finding === undefined) {
    execution.restore(begin);
    const inclination = 0.02 + random() ** 2;
    let high = 0;
    let low = 0;
    const scheduler: Scheduler<Module> = {
      next(running) {
        const ready = execution.threads.filter(({ state }) => state === 'ready');
        const stay = running !== undefined && random() >= inclination;
        const chosen = stay ? running : ready[Math.floor(random() * ready.length)];
        high = Math.imul(high ^ ((chosen?.index ?? 0) + 1), 0x9e3779b1) ^ (low >>> 15);
        low = Math.imul(low + (chosen?.index ?? 0) + 1, 0x85ebca6b) ^ (high >>> 13);
        return chosen;
      },
    };
    execution.run(scheduler, scheduler.next(undefined));
    schedules++;
    met.add((high >>> 0) * 2 ** 20 + (low >>> 12));
    if (execution.finding === undefined) results.add(JSON.stringify(execution.results()));
  }
  return { schedules, abandoned: 0, finding: execution.finding, results, distinct: met.size };
}

/** Numbers in [0, 1) by Marsaglia's xorshift32. */
function randomNumbers(seed: number): () => number {
  let state = Math.imul(seed, 0x9e3779b1) | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
