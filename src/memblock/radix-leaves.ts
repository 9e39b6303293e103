import { FOLIO_SIZE, LEAF_BITS, LEAF_BITS_LOG2, ORDER_BIT } from './radix-key.js';

/** What a thread knows of the leaves in one window of an order, by their number in it. */
export interface LeafWindow {
  /** The words of the segment that holds the leaf. */
  readonly words: Int32Array[];
  /** Index in {@link words} of the leaf's first word; -1 if it is not known, or not there. */
  readonly starts: Int32Array;
}

/** log2 of the leaves in a window. */
const LEAVES_LOG2 = 11;
/** log2 of the folios that a window's leaves mark. Windows of order 0 are 256 GiB: most of what a driver preserves is in one. */
export const WINDOW_LOG2 = LEAF_BITS_LOG2 + LEAVES_LOG2;

// Of this module's own: V8 takes such constants into the code, but loads imported ones each time.
const LEAF_SHIFT = LEAF_BITS_LOG2;
const WINDOW_SHIFT = WINDOW_LOG2;
const LEAVES = 2 ** LEAVES_LOG2;
const LEAF_MASK = LEAVES - 1;

const NO_WORDS = new Int32Array(0);
const EMPTY: LeafWindow = { words: [], starts: new Int32Array(LEAVES).fill(-1) };
const NO_WINDOWS: readonly LeafWindow[] = Array.from({ length: 2 ** (32 - WINDOW_LOG2) }, () => EMPTY);

/**
 * Where the leaves of a radix tree are that a thread has used so far, by order and window: a descent for each mark would cost
 * several times the mark. Leaves never move. A window that is in use takes 24 KiB.
 */
export class RadixLeaves {
  /**
   * The window of the leaf that was met last, by order, and the address where it begins: who looks here first finds most
   * leaves for the least. An address less {@link nearBase}, in folios, must be an integer below 2^{@link WINDOW_LOG2}; that holds of
   * no address that is not a folio's.
   */
  readonly near: LeafWindow[] = Array.from(FOLIO_SIZE, () => EMPTY);
  /** NaN, near to nothing, before there is a leaf. */
  readonly nearBase = FOLIO_SIZE.map(() => Number.NaN);
  readonly #windows: LeafWindow[][] = Array.from(FOLIO_SIZE, () => NO_WINDOWS.slice());
  /** Those of folios whose numbers have more than 32 bits: of order 0 from 16 TiB on. */
  readonly #farWindows: Map<number, LeafWindow>[] = Array.from(FOLIO_SIZE, () => new Map());

  /** The window in which the leaf of folio number `number` is known, if it is; small, so that V8 takes it into its callers. */
  known(number: number, order: number): LeafWindow | undefined {
    const window =
      number >>> 0 === number
        ? this.#windows[order][number >>> WINDOW_SHIFT]
        : this.#farWindows[order].get(Math.floor(number / 2 ** WINDOW_SHIFT));
    return window !== undefined && isKnown(window, number) ? window : undefined;
  }

  /** Notes where the leaf of a folio begins, and makes its window the near one. */
  remember(number: number, order: number, words: Int32Array, start: number): LeafWindow {
    const window = this.#windowOf(number, order);
    window.words[leafOf(number)] = words;
    window.starts[leafOf(number)] = start;
    // But not of an order whose numbers end inside of a leaf: of one beyond that end, the leaf would be known.
    if (ORDER_BIT[order] >= LEAF_BITS) {
      this.near[order] = window;
      this.nearBase[order] = (number - (number % 2 ** WINDOW_LOG2)) * FOLIO_SIZE[order];
    }
    return window;
  }

  #windowOf(number: number, order: number): LeafWindow {
    const index = Math.floor(number / 2 ** WINDOW_LOG2);
    const far = index >= NO_WINDOWS.length;
    const made = far ? this.#farWindows[order].get(index) : this.#windows[order][index];
    if (made !== undefined && made !== EMPTY) return made;
    const window: LeafWindow = {
      words: Array.from({ length: LEAVES }, () => NO_WORDS),
      starts: new Int32Array(LEAVES).fill(-1),
    };
    if (far) this.#farWindows[order].set(index, window);
    else this.#windows[order][index] = window;
    return window;
  }
}

/** The number of a folio's leaf in its window. */
export function leafOf(number: number): number {
  return (number >>> LEAF_SHIFT) & LEAF_MASK;
}

/** Whether the leaf of a folio in this window is known. */
export function isKnown({ starts }: LeafWindow, number: number): boolean {
  return starts[leafOf(number)] >= 0;
}
