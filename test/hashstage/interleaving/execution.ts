import { accessKey, accessOf, holds, isElement } from './access.js';
import { callStack } from './call-stack.js';
import { type Accesses, type AtomicOperation, type Element, type NativeArray, simulatedGlobals } from './globals.js';
import { CheckerError, type Finding, type FindingKind, type Program } from './program.js';
import { type AccessKind, ATOMIC_READ, conflict, PLAIN_READ, PLAIN_WRITE, SharedMemory } from './shared-memory.js';
import { SimulatedThread, type ThreadSnapshot } from './simulated-thread.js';
import { Trace } from './trace.js';

/**
 * Where a thread may be interrupted. `every` access, or `atomic` ones alone: then a thread's plain accesses run
 * together with the atomic one before them. That loses nothing, because plain accesses that another thread could
 * observe in between are races, and races are found by happens-before, whatever the order in which they ran.
 */
export type InterruptionPoints = 'every' | 'atomic';

/** Who runs next. */
export interface Scheduler<Module> {
  /** The ready thread that makes the next access, preferably `running`; undefined abandons the schedule. */
  next(running: SimulatedThread<Module> | undefined): SimulatedThread<Module> | undefined;
}

/** A state that an execution can return to. */
export interface ExecutionSnapshot {
  readonly mark: number;
  readonly accesses: number;
  readonly threads: readonly ThreadSnapshot[];
}

/** Far beyond what any program here needs. */
const MAX_ACCESSES = 50_000;

/** Thrown into shipped code to leave it. If code catches it, its next access throws it again. */
const SUSPENSION = new Error('the simulated thread is suspended');

/** One program on the simulated machine, and the state of its present schedule. */
export class Execution<Module> implements Accesses {
  readonly program: Program<Module>;
  readonly threads: readonly SimulatedThread<Module>[];
  finding: Finding | undefined;
  readonly #memory: SharedMemory;
  readonly #points: InterruptionPoints;
  readonly #shared: unknown;
  readonly #trace = new Trace();
  #scheduler: Scheduler<Module> | undefined;
  #running: SimulatedThread<Module> | undefined;
  /** The running thread has only begun, and goes no further than to where it may be interrupted. */
  #starting = false;
  /** The running thread may make the access that it is at: it was chosen. */
  #granted = false;
  /** The running thread was abandoned: whatever it does now is void. */
  #suspended = false;
  #next: SimulatedThread<Module> | undefined;
  #failure: CheckerError | undefined;
  /** While a race is described: the access of the log whose stack is wanted, and that stack. */
  #wanted = -1;
  #stack = '';

  constructor(program: Program<Module>, points: InterruptionPoints) {
    this.program = program;
    this.#points = points;
    this.#memory = new SharedMemory(program.threads.length, program.sharedWords);
    const globals = simulatedGlobals(this);
    this.#shared = program.setup(program.load(globals));
    this.threads = program.threads.map((thread, index) => new SimulatedThread(index, thread, program.load(globals)));
    for (const thread of this.threads) {
      thread.awaits = (thread.program.after ?? []).map((name) => {
        const awaited = this.threads.find((other) => other.name === name);
        // Only earlier ones, so nobody waits for himself.
        if (awaited === undefined || awaited.index >= thread.index) {
          throw new CheckerError(`'${thread.name}' awaits '${name}', which is no earlier thread`);
        }
        return awaited;
      });
      if (thread.awaits.length > 0) thread.state = 'waiting';
    }
    for (const thread of this.threads) if (thread.state === 'ready') this.#start(thread);
  }

  get buffer(): ArrayBuffer {
    return this.#memory.buffer;
  }

  get allDone(): boolean {
    return this.threads.every(({ state }) => state === 'done');
  }

  snapshot(): ExecutionSnapshot {
    return {
      mark: this.#memory.checkpoint(),
      accesses: this.#trace.length,
      threads: this.threads.map((thread) => thread.snapshot()),
    };
  }

  restore(snapshot: ExecutionSnapshot): void {
    this.#memory.rollback(snapshot.mark);
    this.#trace.cut(snapshot.accesses);
    for (const thread of this.threads) thread.restore(snapshot.threads[thread.index]);
  }

  /** Runs on, `first` first, until all threads are done, the scheduler abandons the schedule, or something is found. */
  run(scheduler: Scheduler<Module>, first: SimulatedThread<Module> | undefined): void {
    this.#scheduler = scheduler;
    for (let next = first; next !== undefined && this.finding === undefined; ) {
      this.#resume(next, false);
      if (next.state === 'done') this.#next = scheduler.next(undefined);
      next = this.#next;
    }
    if (this.finding === undefined && this.allDone) this.#check();
  }

  /**
   * A thread that was suspended dies there: it makes no further access. Who awaits it goes on, as by the message that a
   * worker's end is; so all that it did is ordered before.
   */
  kill(thread: SimulatedThread<Module>): void {
    thread.state = 'done';
    thread.pending = undefined;
    this.#startWaiting();
  }

  /** The threads' results by name, of a schedule that came to its end. */
  results(): Record<string, unknown> {
    return Object.fromEntries(this.threads.map(({ name, result }) => [name, result]));
  }

  #check(): void {
    try {
      this.program.check?.(this.results(), this.#shared);
    } catch (error) {
      this.#found('result', messageOf(error));
    }
  }

  /** A thread begins: it runs up to the first point where it may be interrupted. */
  #start(thread: SimulatedThread<Module>): void {
    for (const awaited of thread.awaits) this.#memory.join(thread.index, awaited.index);
    thread.state = 'ready';
    this.#resume(thread, true);
  }

  /** Repeats what the thread did, then lets it make the access that it is at and go on. */
  #resume(thread: SimulatedThread<Module>, starting: boolean): void {
    this.#running = thread;
    this.#starting = starting;
    this.#granted = !starting;
    this.#suspended = false;
    this.#next = undefined;
    thread.position = 0;
    let result: unknown;
    let thrown: unknown;
    let threw = false;
    try {
      result = thread.run(this.#shared);
    } catch (error) {
      threw = true;
      thrown = error;
    }
    this.#running = undefined;
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#suspended) return;
    if (thrown instanceof CheckerError) throw thrown;
    if (thread.repeating || this.#granted) {
      throw new CheckerError(`'${thread.name}' did not repeat itself: it ended early`);
    }
    thread.state = 'done';
    thread.pending = undefined;
    thread.result = result;
    if (threw) {
      this.#found('exception', `'${thread.name}' threw ${messageOf(thrown)}`);
      return;
    }
    this.#startWaiting();
  }

  #startWaiting(): void {
    for (const other of this.threads) {
      if (other.state === 'waiting' && other.awaits.every(({ state }) => state === 'done')) this.#start(other);
    }
  }

  // -- what the simulated globals call -------------------------------------------------------------------------------

  reserve(bytes: number): number {
    if (this.#running !== undefined) this.fail(new CheckerError('only setup may reserve shared memory'));
    return this.#memory.reserve(bytes);
  }

  read(array: NativeArray, index: number): Element | undefined {
    if (!isElement(array, index)) return this.#outside(array, index);
    const thread = this.#running;
    if (thread === undefined) return array[index];
    const at = array.byteOffset + index * array.BYTES_PER_ELEMENT;
    if (thread.position < thread.length) return this.#repeat(thread, at, PLAIN_READ, array, 0) as Element;
    this.#before(thread, PLAIN_READ, at, array);
    const value = array[index];
    this.#made(thread, PLAIN_READ, at, array, 0, value);
    return value;
  }

  write(array: NativeArray, index: number, value: Element): void {
    if (!isElement(array, index)) {
      this.#outside(array, index);
      return;
    }
    const thread = this.#running;
    if (thread === undefined) {
      array[index] = value;
      return;
    }
    const at = array.byteOffset + index * array.BYTES_PER_ELEMENT;
    if (thread.position < thread.length) {
      this.#repeat(thread, at, PLAIN_WRITE, array, value);
      return;
    }
    this.#before(thread, PLAIN_WRITE, at, array);
    this.#save(at, array);
    array[index] = value;
    this.#made(thread, PLAIN_WRITE, at, array, value, undefined);
  }

  atomic(
    array: NativeArray,
    index: number,
    kind: AccessKind,
    operation: AtomicOperation,
    first: unknown,
    second: unknown,
  ): Element {
    const thread = this.#running;
    // The language's own function checks index and operands.
    if (thread === undefined || !isElement(array, index)) return operation(array, index, first, second);
    const at = array.byteOffset + index * array.BYTES_PER_ELEMENT;
    // Of a compare-and-swap, what it would store.
    const operand = second === undefined ? first : second;
    if (thread.position < thread.length) return this.#repeat(thread, at, kind, array, operand) as Element;
    this.#before(thread, kind, at, array);
    this.#save(at, array);
    const value = operation(array, index, first, second);
    // A compare-and-swap that fails only reads: it acquires, and releases nothing.
    const failed = operation === (Atomics.compareExchange as unknown) && !holds(array, value, first);
    this.#made(thread, failed ? ATOMIC_READ : kind, at, array, operand, value, kind);
    return value;
  }

  fail(error: CheckerError): never {
    // Shipped code could catch it.
    this.#failure ??= error;
    throw error;
  }

  // -- an access -----------------------------------------------------------------------------------------------------

  #repeat(thread: SimulatedThread<Module>, at: number, kind: AccessKind, array: NativeArray, operand: unknown) {
    if (thread.position === this.#wanted) this.#stack = callStack();
    try {
      return thread.repeat(accessKey(at, kind, array), operand);
    } catch (error) {
      return error instanceof CheckerError ? this.fail(error) : undefined;
    }
  }

  /** Returns when the running thread may make this access; suspends it when another thread comes first. */
  #before(thread: SimulatedThread<Module>, kind: AccessKind, at: number, array: NativeArray): void {
    if (this.#suspended) throw SUSPENSION;
    if (this.#points === 'atomic' && (kind === PLAIN_READ || kind === PLAIN_WRITE)) return;
    if (this.#granted) {
      this.#granted = false;
      return;
    }
    thread.pending = { kind, word: at >> 2, words: Math.max(1, array.BYTES_PER_ELEMENT >> 2) };
    this.#next = this.#starting ? undefined : this.#scheduler?.next(thread);
    if (this.#next === thread) return;
    this.#suspend();
  }

  #made(
    thread: SimulatedThread<Module>,
    kind: AccessKind,
    at: number,
    array: NativeArray,
    operand: unknown,
    value: unknown,
    loggedKind = kind,
  ): void {
    this.#trace.add(thread.name);
    thread.record(accessKey(at, loggedKind, array), operand, value);
    const end = at + array.BYTES_PER_ELEMENT;
    for (let word = at >> 2; word * 4 < end; word++) {
      const racing = this.#memory.access(thread.index, kind, word);
      if (racing !== -1) this.#foundRace(thread, kind, word, this.threads[racing]);
    }
    if (this.#trace.length > MAX_ACCESSES) {
      this.#found('endless', `no end after ${MAX_ACCESSES} accesses`);
      this.#suspend();
    }
  }

  #save(at: number, array: NativeArray): void {
    const end = at + array.BYTES_PER_ELEMENT;
    for (let word = at >> 2; word * 4 < end; word++) this.#memory.save(word);
  }

  #suspend(): never {
    this.#suspended = true;
    throw SUSPENSION;
  }

  // -- what was found ------------------------------------------------------------------------------------------------

  #outside(array: NativeArray, index: number): undefined {
    const thread = this.#running;
    if (thread === undefined) throw new CheckerError(`setup uses [${index}] of a shared array of ${array.length}`);
    if (this.#suspended) throw SUSPENSION;
    this.#found('outside', `'${thread.name}' uses [${index}] of a shared array of ${array.length} (${callStack()})`);
    this.#suspend();
  }

  #foundRace(thread: SimulatedThread<Module>, kind: AccessKind, word: number, other: SimulatedThread<Module>): never {
    const here = callStack();
    const { otherKind, stack } = this.#lastConflict(kind, word, other);
    this.#found(
      'race',
      `'${thread.name}' ${VERBS[kind]} word ${word} (${here}), which '${other.name}' ${VERBS[otherKind]} (${stack}), and nothing orders the two`,
    );
    this.#suspend();
  }

  /** The latest access by `other` that conflicts with one of `kind`, and where in its code it is. */
  #lastConflict(kind: AccessKind, word: number, other: SimulatedThread<Module>) {
    for (let position = other.length - 1; position >= 0; position--) {
      const { at, size, kind: otherKind } = accessOf(other.keyAt(position));
      if (at >> 2 <= word && word * 4 < at + size && conflict(kind, otherKind)) {
        return { otherKind, stack: this.#stackOf(other, position) };
      }
    }
    throw new CheckerError(`no access of word ${word} by '${other.name}' is known`);
  }

  /** Repeats a thread that is not running, to see where in its code an access is. */
  #stackOf(thread: SimulatedThread<Module>, position: number): string {
    const running = this.#running;
    this.#running = thread;
    this.#suspended = true; // as soon as nothing is left to repeat
    this.#wanted = position;
    thread.position = 0;
    try {
      thread.run(this.#shared);
    } catch {
      // The suspension, or what the thread threw when it ended.
    }
    this.#wanted = -1;
    this.#running = running;
    return this.#stack;
  }

  #found(kind: FindingKind, message: string): void {
    this.finding ??= { kind, message, schedule: String(this.#trace) };
  }
}

const VERBS = ['reads', 'writes', 'loads atomically', 'stores atomically', 'updates atomically'] as const;

function messageOf(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}
