import type { PageRange } from '../memblock/index.js';
import type { DmaWindow, PrepareContext } from '../workers/driver.js';
import { type AnyContext, commitFault } from './commit-fault.js';
import type { Fault, FaultCallback } from './fault.js';
import type { FaultBoard } from './fault-board.js';
import { InstanceJournal } from './instance-journal.js';
import { watchedContext } from './watched-context.js';

/** One instance of a wrapped driver, as its thread sees it: where faults strike and what is noted of it. */
export class Seat {
  readonly #board: FaultBoard;
  readonly #journal: InstanceJournal | undefined;
  readonly #driver: string;
  readonly #instance: string;
  readonly #index: number | undefined;
  readonly #shards: number;

  /** What the instance's device can write to, for faults that want it to. */
  #window: DmaWindow | undefined;

  /** `outgoing` is absent in the successor: the instance's journal, and how many shards it has. */
  constructor(
    board: FaultBoard,
    driver: string,
    instance: string,
    index?: number,
    outgoing?: { readonly journal: number; readonly shards: number },
  ) {
    this.#board = board;
    this.#driver = driver;
    this.#instance = instance;
    this.#index = index;
    this.#shards = outgoing?.shards ?? 1;
    this.#journal = outgoing && new InstanceJournal(board, outgoing.journal);
  }

  /** Runs the driver's own callback as `work`, with the fault that is planned for it, if one is. */
  run<C extends object, T>(callback: FaultCallback, context: C, shard: number | undefined, work: (context: C) => T): T {
    this.#journal?.note(callback);
    let left = false;
    const leave = (): void => {
      if (!left) this.#board.leave();
      left = true;
    };
    const taken = this.#board.take({
      driver: this.#driver,
      instance: this.#instance,
      index: this.#index,
      shard,
      callback,
    });
    this.#board.enter();
    const done = (): void => {
      leave();
      this.#journal?.noteDone(callback);
    };
    return whenSettled(
      () => {
        if (taken === undefined) return work(this.#withDevice(callback, context));
        const commit = (): unknown => {
          leave(); // from here on it may never end by itself: nobody need wait for it
          return commitFault(taken, context as AnyContext, this.#board, { window: this.#window, shards: this.#shards });
        };
        return struck({ fault: taken, commit }, context, work);
      },
      done,
      leave,
    );
  }

  /** Where a late write is planned, prepare opens the device's window to the first pages that it preserves. */
  #withDevice<C extends object>(callback: FaultCallback, context: C): C {
    const isPlanned = this.#board.plan.some(({ fault, driver }) => fault === 'late write' && driver === this.#driver);
    const { preserve, dma } = context as Partial<PrepareContext<unknown, unknown>>;
    if (!isPlanned || callback !== 'prepare' || preserve === undefined || dma === undefined) return context;
    this.#window = undefined;
    return overridden(context, {
      preserve: (pages: PageRange) => {
        preserve.call(context, pages);
        this.#window ??= dma.call(context, pages);
      },
    });
  }
}

interface Strike {
  readonly fault: Fault;
  readonly commit: () => unknown;
}

/** Runs `work` with the fault before it, after it, or in the middle. Types stay those of `work`: a fault changes no more. */
function struck<C extends object, T>({ fault, commit }: Strike, context: C, work: (context: C) => T): T {
  if (fault.fault === 'not cloneable') return chain(work(context), () => () => 'cannot be cloned') as T;
  if (fault.fault === 'unclaimed') return work(overridden(context, { claim() {}, discard() {} }));
  if (fault.fault === 'double claim') return work(claimingTwice(context));
  const { when = 'before' } = fault;
  if (when === 'before') return chain(commit(), () => work(context)) as T;
  if (when === 'after') return chain(work(context), (result) => chain(commit(), () => result)) as T;
  let pending: { readonly outcome: unknown } | undefined;
  const watched = watchedContext(context, () => {
    pending ??= { outcome: commit() };
  });
  const succeeded = (value: unknown): unknown => chain(pending === undefined ? commit() : pending.outcome, () => value);
  // What has begun to strike, such as a timer that will throw, does so before the callback is over, even if that failed.
  const failed = (error: unknown): unknown => {
    if (pending === undefined) throw error;
    return chain(pending.outcome, () => {
      throw error;
    });
  };
  let result: T;
  try {
    result = work(watched);
  } catch (error) {
    return failed(error) as T;
  }
  return (isThenable(result) ? Promise.resolve(result).then(succeeded, failed) : succeeded(result)) as T;
}

/** The same context with other methods; the rest is called on the real one. */
function overridden<C extends object>(context: C, methods: Record<string, (...args: never[]) => unknown>): C {
  return new Proxy(context, {
    get(of, property) {
      if (typeof property === 'string' && property in methods) return methods[property];
      const value: unknown = Reflect.get(of, property, of);
      return typeof value === 'function' ? value.bind(of) : value;
    },
  });
}

function claimingTwice<C extends object>(context: C): C {
  const { claim, discard, claimFolio } = context as AnyContext;
  const twice =
    (call: ((pages: never) => unknown) | undefined) =>
    (pages: never): unknown => {
      call?.call(context, pages);
      return call?.call(context, pages);
    };
  return overridden(context, { claim: twice(claim), discard: twice(discard), claimFolio: twice(claimFolio) });
}

/** `next` after `value`, which may be a promise; at once if it is none, so that what is synchronous stays so. */
function chain(value: unknown, next: (value: unknown) => unknown): unknown {
  return isThenable(value) ? Promise.resolve(value).then(next) : next(value);
}

function whenSettled<T>(work: () => T, done: () => void, failed: () => void): T {
  let result: T;
  try {
    result = work();
  } catch (error) {
    failed();
    throw error;
  }
  if (isThenable(result)) Promise.resolve(result).then(done, failed);
  else done();
  return result;
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
}
