import type { Fault, FaultCallback } from './fault.js';

/**
 * ```text
 *   [0]  BELL      counts what happened; whoever waits for news waits on it
 *   [1]  VERSION   of the plan; threads read the plan anew when it has changed
 *   [2]  BYTES     of the plan's text
 *   [3]  RUNNING   callbacks under way that have not met a fault
 *   [4]  SEQUENCE  the last stamp that was given out
 *   [5]  CALLS     how many threads have announced something
 *   [6]  BEGUN     how many callbacks have begun
 *   [7…] FAULTS    for each fault: how often it has fired
 *   […]  ANNOUNCED a ring of what threads want: STATE, THREAD
 *   […]  INSTANCES for each instance: see InstanceJournal
 *   […]  the plan's text, UTF-8
 * ```
 * All words are used with Atomics. The plan is written by the main thread alone, while no callback runs.
 */
const BELL = 0;
const VERSION = 1;
const BYTES = 2;
const RUNNING = 3;
const SEQUENCE = 4;
const CALLS = 5;
const BEGUN = 6;
const FAULTS = 7;
const MAX_FAULTS = 64;
const ANNOUNCED = FAULTS + MAX_FAULTS;
/** More than threads that can be at a fault at a time. */
const MAX_ANNOUNCED = 128;
const INSTANCES = ANNOUNCED + MAX_ANNOUNCED * 2;
const PLAN_BYTES = 16 * 1024;
/** Words of one instance's journal. */
export const JOURNAL_WORDS = 4;

/** What a thread at a fault wants from the main thread. */
export const FAULT_STATES = {
  none: 0,
  /** It hangs: the clock must go on until somebody ends it. */
  hangs: 1,
  /** It waits to be terminated. */
  awaitsEnd: 2,
  /** The run is to be aborted from outside. */
  aborts: 3,
} as const;
export type FaultState = (typeof FAULT_STATES)[keyof typeof FAULT_STATES];

/** What another thread needs; structured-cloneable, shares the memory. */
export interface FaultBoardHandle {
  readonly buffer: SharedArrayBuffer;
  readonly instances: number;
}

/**
 * The faults that are to happen, and what has happened so far, in memory that all threads share: so a plan can change
 * between two handovers of threads that run already, and the main thread sees a hang while the thread can say nothing.
 */
export class FaultBoard {
  readonly #words: Int32Array;
  readonly #text: Uint8Array;
  readonly #instances: number;
  #plan: readonly Fault[] = [];
  #version = 0;

  private constructor({ buffer, instances }: FaultBoardHandle) {
    const words = INSTANCES + instances * JOURNAL_WORDS;
    this.#words = new Int32Array(buffer, 0, words);
    this.#text = new Uint8Array(buffer, words * 4, PLAN_BYTES);
    this.#instances = instances;
  }

  static create(instances: number): FaultBoard {
    const words = INSTANCES + instances * JOURNAL_WORDS;
    return new FaultBoard({ buffer: new SharedArrayBuffer(words * 4 + PLAN_BYTES), instances });
  }

  static attach(handle: FaultBoardHandle): FaultBoard {
    return new FaultBoard(handle);
  }

  get handle(): FaultBoardHandle {
    return { buffer: this.#words.buffer as SharedArrayBuffer, instances: this.#instances };
  }

  get words(): Int32Array {
    return this.#words;
  }

  /** Every fault that is planned, fired or not. */
  get plan(): readonly Fault[] {
    const version = Atomics.load(this.#words, VERSION);
    if (version !== this.#version) {
      const text = this.#text.slice(0, Atomics.load(this.#words, BYTES));
      this.#plan = JSON.parse(new TextDecoder().decode(text)) as Fault[];
      this.#version = version;
    }
    return this.#plan;
  }

  /** Plans one more. Main thread, while no callback runs. RangeError beyond 64 faults, or 16 KiB of their text. */
  add(fault: Fault): void {
    this.#write([...this.plan, fault]);
  }

  /** Forgets all faults, and how often they fired. Main thread, while no callback runs. */
  clear(): void {
    this.#words.fill(0, FAULTS, INSTANCES);
    this.#write([]);
  }

  #write(faults: readonly Fault[]): void {
    const bytes = new TextEncoder().encode(JSON.stringify(faults));
    if (faults.length > MAX_FAULTS || bytes.length > PLAN_BYTES) {
      throw new RangeError(`a plan has at most ${MAX_FAULTS} faults, and ${PLAN_BYTES} bytes of text`);
    }
    this.#text.set(bytes);
    Atomics.store(this.#words, BYTES, bytes.length);
    Atomics.add(this.#words, VERSION, 1);
  }

  /**
   * The fault that is to happen now in this callback, if one is: it counts as fired. Any thread.
   */
  take(where: {
    driver: string;
    instance: string;
    index: number | undefined;
    shard: number | undefined;
    callback: FaultCallback;
  }): Fault | undefined {
    for (const [number, fault] of this.plan.entries()) {
      if (fault.callback !== where.callback || fault.driver !== where.driver) continue;
      if (fault.shard !== undefined && fault.shard !== where.shard) continue;
      if (fault.instance !== undefined && fault.instance !== where.instance && fault.instance !== where.index) continue;
      // A ticket more than there are is handed back.
      if (Atomics.add(this.#words, FAULTS + number, 1) < (fault.times ?? 1)) return fault;
      Atomics.sub(this.#words, FAULTS + number, 1);
    }
    return undefined;
  }

  /** How often a fault has fired. */
  fired(number: number): number {
    return Math.min(Atomics.load(this.#words, FAULTS + number), this.plan[number]?.times ?? 1);
  }

  /** Says that a thread has come to a point where the main thread must do something. That thread alone. */
  announce(state: FaultState, thread: number): void {
    const at = ANNOUNCED + (Atomics.add(this.#words, CALLS, 1) % MAX_ANNOUNCED) * 2;
    Atomics.store(this.#words, at + 1, thread);
    Atomics.store(this.#words, at, state);
    this.ring();
  }

  /** The threads that want something, with what; each is told once. Main thread. */
  *announced(): Generator<{ readonly state: FaultState; readonly thread: number }> {
    for (let at = ANNOUNCED; at < INSTANCES; at += 2) {
      const state = Atomics.exchange(this.#words, at, FAULT_STATES.none) as FaultState;
      if (state !== FAULT_STATES.none) yield { state, thread: Atomics.load(this.#words, at + 1) };
    }
  }

  ring(): void {
    Atomics.add(this.#words, BELL, 1);
    Atomics.notify(this.#words, BELL);
  }

  /** Sleeps until {@link ring}, at most so many milliseconds, from when the bell stood at `seen`. */
  async untilRung(seen: number, milliseconds: number): Promise<void> {
    // Such a wait does not keep the process alive by itself.
    const alive = setInterval(() => {}, milliseconds);
    try {
      await waitAsync(this.#words, BELL, seen, milliseconds).value;
    } finally {
      clearInterval(alive);
    }
  }

  get bell(): number {
    return Atomics.load(this.#words, BELL);
  }

  enter(): void {
    Atomics.add(this.#words, RUNNING, 1);
    Atomics.add(this.#words, BEGUN, 1);
  }

  leave(): void {
    Atomics.sub(this.#words, RUNNING, 1);
  }

  /** Callbacks under way that have not met a fault: they end by themselves. */
  get running(): number {
    return Atomics.load(this.#words, RUNNING);
  }

  /** How many callbacks have begun so far, modulo 2^32. */
  get begun(): number {
    return Atomics.load(this.#words, BEGUN);
  }

  /** Main thread, while no callback runs: a thread that died cannot have left. */
  resetRunning(): void {
    Atomics.store(this.#words, RUNNING, 0);
  }

  /** 1, 2, …: the order in which things began, over all threads. */
  stamp(): number {
    return Atomics.add(this.#words, SEQUENCE, 1) + 1;
  }

  /** Index of an instance's first word. */
  journalAt(instance: number): number {
    return INSTANCES + instance * JOURNAL_WORDS;
  }
}

/** The part of ECMAScript 2024 that the type library of 2023 does not know. */
const { waitAsync } = Atomics as unknown as {
  waitAsync(words: Int32Array, index: number, value: number, timeout: number): { readonly value: unknown };
};
