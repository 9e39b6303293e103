import type { PendingAccess } from './access.js';
import { CheckerError, type ThreadProgram } from './program.js';

/** `waiting` for other threads to end; `ready` at its next access, or not begun; `done`. */
export type ThreadState = 'waiting' | 'ready' | 'done';

/** All of a thread that a search must put back: its run is repeated from this. */
export interface ThreadSnapshot {
  readonly length: number;
  readonly state: ThreadState;
  readonly pending: PendingAccess | undefined;
  readonly result: unknown;
}

/**
 * A thread as the list of its accesses so far. JavaScript cannot suspend a function, but a thread's run depends only on
 * the values it reads: so it is abandoned by an exception, and repeated later with the same values up to where it was.
 */
export class SimulatedThread<Module> {
  readonly index: number;
  readonly name: string;
  readonly module: Module;
  readonly program: ThreadProgram<Module>;
  /** The threads whose end it awaits. */
  awaits: readonly SimulatedThread<Module>[] = [];
  length = 0;
  state: ThreadState = 'ready';
  pending: PendingAccess | undefined;
  result: unknown;
  /** How many accesses of the log the present run has repeated. */
  position = 0;
  /** By access: where and of what kind; the operand; the value that it returned. */
  readonly #keys: number[] = [];
  readonly #operands: unknown[] = [];
  readonly #values: unknown[] = [];

  constructor(index: number, program: ThreadProgram<Module>, module: Module) {
    this.index = index;
    this.name = program.name;
    this.program = program;
    this.module = module;
  }

  /** Runs it from the start. */
  run(shared: unknown): unknown {
    const received = Object.fromEntries(this.awaits.map(({ name, result }) => [name, result]));
    return this.program.run(this.module, shared, received);
  }

  get repeating(): boolean {
    return this.position < this.length;
  }

  /** Notes an access that was made. */
  record(key: number, operand: unknown, value: unknown): void {
    this.#keys[this.length] = key;
    this.#operands[this.length] = operand;
    this.#values[this.length] = value;
    this.length++;
    this.position++;
  }

  /** The value of the next access of the log, which must be the access that the run makes. */
  repeat(key: number, operand: unknown): unknown {
    const at = this.position++;
    if (this.#keys[at] !== key || !Object.is(this.#operands[at], operand)) {
      throw new CheckerError(
        `'${this.name}' did not repeat itself at its access ${at + 1}: it keeps state outside of the objects that it makes, or is not deterministic`,
      );
    }
    return this.#values[at];
  }

  /** The key of an access of the log. */
  keyAt(position: number): number {
    return this.#keys[position];
  }

  snapshot(): ThreadSnapshot {
    return { length: this.length, state: this.state, pending: this.pending, result: this.result };
  }

  restore(snapshot: ThreadSnapshot): void {
    this.length = snapshot.length;
    this.state = snapshot.state;
    this.pending = snapshot.pending;
    this.result = snapshot.result;
  }
}
