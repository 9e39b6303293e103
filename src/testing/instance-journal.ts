import type { FaultCallback } from './fault.js';
import type { FaultBoard } from './fault-board.js';

/** Where an instance is in its life, by the callbacks that it got. */
export const LIFE_STATES = ['normal', 'prepared', 'shut down', 'freezing', 'frozen'] as const;
export type LifeState = (typeof LIFE_STATES)[number];

/** What an instance's callbacks must not be called after, as bits of its word. */
const BREACHES = [
  'frozen before it was prepared',
  'serialized before it was frozen',
  'cancelled while it was frozen, without unfreeze',
  'updated after it was frozen',
] as const;

const STATE = 0;
const BREACH = 1;
const LAST_FREEZE = 2;
const LAST_CANCEL = 3;

/**
 * One instance's life, in four words of the board: `STATE, BREACH (bits), LAST_FREEZE, LAST_CANCEL (stamps)`. The thread that
 * runs the instance's callback writes, as a callback begins; the main thread reads between handovers.
 */
export class InstanceJournal {
  readonly #board: FaultBoard;
  readonly #base: number;

  constructor(board: FaultBoard, instance: number) {
    this.#board = board;
    this.#base = board.journalAt(instance);
  }

  get state(): LifeState {
    return LIFE_STATES[this.#get(STATE)] ?? 'normal';
  }

  /** Calls that came out of order. */
  get breaches(): string[] {
    const bits = this.#get(BREACH);
    return BREACHES.filter((_, bit) => (bits & (1 << bit)) !== 0);
  }

  /** When it was frozen last, and when it was cancelled last: stamps of the board; 0 for never. */
  get frozen(): number {
    return this.#get(LAST_FREEZE);
  }

  get cancelled(): number {
    return this.#get(LAST_CANCEL);
  }

  /** A callback of the instance begins. */
  note(callback: FaultCallback): void {
    const { state } = this;
    switch (callback) {
      case 'prepare':
        this.#set(STATE, 1);
        break;
      case 'update':
        if (state !== 'prepared') this.#breach(3);
        break;
      case 'shutdown':
        this.#set(STATE, 2);
        break;
      case 'freeze':
        if (state === 'normal') this.#breach(0);
        this.#set(STATE, 3);
        this.#set(LAST_FREEZE, this.#board.stamp());
        break;
      case 'serialize':
        if (state !== 'frozen') this.#breach(1);
        break;
      case 'unfreeze':
        this.#set(STATE, 1);
        break;
      case 'cancel':
        if (state === 'frozen') this.#breach(2);
        this.#set(STATE, 0);
        this.#set(LAST_CANCEL, this.#board.stamp());
        break;
      default:
    }
  }

  /** A callback of the instance has returned, and not failed. */
  noteDone(callback: FaultCallback): void {
    if (callback === 'freeze') this.#set(STATE, 4);
  }

  /** The handover is over: what was handed over goes on in the next kernel, and here all is as before. Main thread. */
  reset(): void {
    for (const word of [STATE, BREACH, LAST_FREEZE, LAST_CANCEL]) this.#set(word, 0);
  }

  #breach(bit: number): void {
    Atomics.or(this.#board.words, this.#base + BREACH, 1 << bit);
  }

  #get(word: number): number {
    return Atomics.load(this.#board.words, this.#base + word);
  }

  #set(word: number, value: number): void {
    Atomics.store(this.#board.words, this.#base + word, value);
  }
}
