import type { FaultBoard } from './fault-board.js';
import { FAULT_STATES } from './fault-board.js';
import type { WorkerWatch } from './worker-watch.js';

/** How long callbacks that are under way beside one that hangs may take to end, before the clock goes on regardless. */
const OTHERS_MS = 500;
/**
 * How long none must have begun, for a thread to be between two of them: on a busy machine it may stand still there, and
 * would be ended with a callback that has returned, but of which nobody knows yet.
 */
const SETTLED_MS = 50;
/** While something hangs; it is ended by whoever the clock has told. */
const STEP_MS = 2;
/** A ring is not missed; this is for the process's own liveness. */
const IDLE_MS = 1000;

export interface FaultWatchParts {
  readonly board: FaultBoard;
  readonly workers: WorkerWatch;
  /** Gets the ids of the threads that must not live on. */
  readonly struck: Set<number>;
  readonly onAbort: () => void;
  /** Called every other millisecond while that thread hangs, and nothing else runs or has begun lately. */
  readonly onHang: (thread: number) => void;
}

/**
 * Serves the threads that have come to a fault, while a handover is under way: terminates those that wait for it, and lets
 * the clock run on while one hangs, until that thread is ended.
 */
export class FaultWatch implements AsyncDisposable {
  readonly #parts: FaultWatchParts;
  readonly #loop: Promise<void>;
  readonly #hanging = new Map<number, number>();
  #stopped = false;
  #begun = 0;
  #lastBegun = 0;

  constructor(parts: FaultWatchParts) {
    this.#parts = parts;
    this.#loop = this.#serve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    this.#parts.board.ring();
    await this.#loop;
  }

  async #serve(): Promise<void> {
    const { board, workers, struck, onAbort } = this.#parts;
    while (!this.#stopped) {
      const seen = board.bell;
      for (const { state, thread } of board.announced()) {
        if (state === FAULT_STATES.aborts) {
          onAbort();
          continue;
        }
        struck.add(thread);
        if (state === FAULT_STATES.awaitsEnd) workers.terminate(thread);
        else this.#hanging.set(thread, performance.now());
      }
      this.#goOn();
      await board.untilRung(seen, this.#hanging.size > 0 ? STEP_MS : IDLE_MS);
    }
  }

  #goOn(): void {
    const { board, workers, onHang } = this.#parts;
    const now = performance.now();
    if (board.running > 0 || board.begun !== this.#begun) {
      this.#begun = board.begun;
      this.#lastBegun = now;
    }
    const isSettled = now - this.#lastBegun >= SETTLED_MS;
    for (const [thread, since] of this.#hanging) {
      if (!workers.isAlive(thread)) this.#hanging.delete(thread);
      // What is under way beside it is no hang: it is given the time to end before the clock says that it is one.
      else if (isSettled || now - since > OTHERS_MS) onHang(thread);
    }
  }
}
