import type { SimulatedGlobals } from './globals.js';

/** One thread of a program. What it does may depend on nothing but `shared`, `received` and what it reads from shared memory. */
export interface ThreadProgram<Module> {
  readonly name: string;
  /** The threads whose end this one awaits, as by a message: it starts when all are done, and all they did is ordered before. */
  readonly after?: readonly string[];
  /**
   * Runs on a module instance of the thread's own; `shared` is what `setup` returned, `received` what the threads of
   * `after` returned. It is run again and again, each time up to a later access.
   */
  run(module: Module, shared: unknown, received: Readonly<Record<string, unknown>>): unknown;
}

/** What the checker drives: modules as they are shipped, threads that use them, and what must hold in the end. */
export interface Program<Module> {
  readonly name: string;
  /** Room for the shared buffers that `setup` makes. */
  readonly sharedWords: number;
  /** Makes a module instance out of code that finds these in place of the language's globals. */
  load(globals: SimulatedGlobals): Module;
  /** Runs once, before all threads. */
  setup(module: Module): unknown;
  readonly threads: readonly ThreadProgram<Module>[];
  /** Throws if the threads' results, by name, are wrong. */
  check?(results: Readonly<Record<string, unknown>>, shared: unknown): void;
}

/**
 * What was found:
 * - `race`: a plain access and a conflicting access of another thread, and neither happens before the other;
 * - `outside`: an access beyond the end of a shared array;
 * - `exception`: a thread threw;
 * - `result`: the threads' results are wrong;
 * - `endless`: no end after a great many accesses.
 */
export type FindingKind = 'race' | 'outside' | 'exception' | 'result' | 'endless';

export interface Finding {
  readonly kind: FindingKind;
  readonly message: string;
  /** Who ran, for how many accesses each time, up to the finding. */
  readonly schedule: string;
}

/** Thrown by the checker when it cannot judge: a program that is not deterministic, or uses what is not simulated. */
export class CheckerError extends Error {
  override readonly name = 'CheckerError';
}
