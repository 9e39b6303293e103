import type { Element, NativeArray } from './globals.js';
import { type AccessKind, writes } from './shared-memory.js';

/** An access that a thread is about to make: `words` words from word `word` on. */
export interface PendingAccess {
  readonly kind: AccessKind;
  readonly word: number;
  readonly words: number;
}

/** True if one of two accesses changes what the other one touches. */
export function dependent(a: PendingAccess, b: PendingAccess): boolean {
  return (writes(a.kind) || writes(b.kind)) && a.word < b.word + b.words && b.word < a.word + a.words;
}

const KINDS = 8;
const SIZES = 16;

/** An access as one number: the byte where it begins, its kind, and the bytes of its element. */
export function accessKey(at: number, kind: AccessKind, array: NativeArray): number {
  return (at * KINDS + kind) * SIZES + array.BYTES_PER_ELEMENT;
}

/** The parts of an {@link accessKey}. */
export function accessOf(key: number): { at: number; kind: AccessKind; size: number } {
  const place = Math.floor(key / SIZES);
  return { at: Math.floor(place / KINDS), kind: (place % KINDS) as AccessKind, size: key % SIZES };
}

export function isElement(array: NativeArray, index: number): boolean {
  return index >= 0 && index < array.length && Number.isInteger(index);
}

/** Whether an element holds what `value` becomes when it is stored in an array of this type. */
export function holds(array: NativeArray, element: Element, value: unknown): boolean {
  const cell = new (array.constructor as Int32ArrayConstructor)(1);
  cell[0] = value as number;
  return Object.is(cell[0], element);
}
