import type { SimulatedGlobals } from './globals.js';
import type { Program, ThreadProgram } from './program.js';

/** What a thread of a small program works on: the simulated Atomics, and words of shared memory, which are 0 at first. */
export interface Litmus {
  readonly words: Int32Array;
  readonly bytes: Uint8Array;
  readonly atomics: typeof Atomics;
  readonly globals: SimulatedGlobals;
}

/** A thread's body, or that with the threads that it awaits. */
export type LitmusThread = ((machine: Litmus, received: Readonly<Record<string, unknown>>) => unknown) & {
  after?: readonly string[];
};

/** A program written for a test of the checker itself: threads `a`, `b`, ... over eight shared words. */
export function litmus(...bodies: readonly LitmusThread[]): Program<SimulatedGlobals> {
  return {
    name: 'litmus',
    sharedWords: 8,
    load: (globals) => globals,
    setup: (globals) => new globals.SharedArrayBuffer(32),
    threads: bodies.map(
      (body, index): ThreadProgram<SimulatedGlobals> => ({
        name: 'abcdef'.charAt(index),
        after: body.after ?? [],
        run: (globals, buffer, received) =>
          body(
            {
              words: new globals.Int32Array(buffer as SharedArrayBuffer),
              bytes: new (globals.Uint8Array as typeof Uint8Array)(buffer as SharedArrayBuffer),
              atomics: globals.Atomics,
              globals,
            },
            received,
          ),
      }),
    ),
  };
}

/** `body`, begun only after the threads of these names have ended. */
export function after(names: readonly string[], body: LitmusThread): LitmusThread {
  const thread: LitmusThread = (machine, received) => body(machine, received);
  thread.after = names;
  return thread;
}
