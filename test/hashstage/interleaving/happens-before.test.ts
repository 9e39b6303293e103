import { expect, test } from 'vitest';
import {
  type AccessKind,
  ATOMIC_READ,
  ATOMIC_UPDATE,
  ATOMIC_WRITE,
  PLAIN_READ,
  PLAIN_WRITE,
  SharedMemory,
} from './shared-memory.js';

type Access = [thread: number, kind: AccessKind, word: number];
const DATA = 0;
const FLAG = 1;

/** The thread with which the last of the accesses races, or -1. The ones before must not race. */
function lastRace(...accesses: readonly Access[]): number {
  const memory = new SharedMemory(3, 8);
  const races = accesses.map(([thread, kind, word]) => memory.access(thread, kind, word));
  expect(races.slice(0, -1).filter((racing) => racing !== -1)).toEqual([]);
  return races.at(-1) ?? -1;
}

test('two accesses of one word race if one writes and one is plain, and not otherwise', () => {
  const kinds = [PLAIN_READ, PLAIN_WRITE, ATOMIC_READ, ATOMIC_WRITE, ATOMIC_UPDATE] as const;
  const racing = kinds.map((first) => kinds.map((second) => lastRace([0, first, DATA], [1, second, DATA]) !== -1));
  expect(racing).toEqual([
    [false, true, false, true, true],
    [true, true, true, true, true],
    [false, true, false, false, false],
    [true, true, false, false, false],
    [true, true, false, false, false],
  ]);
  for (const first of kinds) {
    for (const second of kinds) {
      expect(lastRace([0, first, DATA], [0, second, DATA])).toBe(-1);
      expect(lastRace([0, first, DATA], [1, second, FLAG])).toBe(-1);
    }
  }
});

test('an atomic read is ordered after the atomic write that it reads from, and after all that came before that', () => {
  const publish: Access[] = [
    [0, PLAIN_WRITE, DATA],
    [0, ATOMIC_WRITE, FLAG],
  ];
  expect(lastRace(...publish, [1, ATOMIC_READ, FLAG], [1, PLAIN_READ, DATA])).toBe(-1);
  expect(lastRace(...publish, [1, ATOMIC_UPDATE, FLAG], [1, PLAIN_WRITE, DATA])).toBe(-1);
  expect(lastRace(...publish, [1, PLAIN_READ, DATA])).toBe(0);
  // What the writer does after its release is not ordered.
  expect(lastRace(...publish, [0, PLAIN_WRITE, DATA], [1, ATOMIC_READ, FLAG], [1, PLAIN_READ, DATA])).toBe(0);
  // Through a third thread, too.
  expect(
    lastRace(...publish, [1, ATOMIC_READ, FLAG], [1, ATOMIC_WRITE, 2], [2, ATOMIC_READ, 2], [2, PLAIN_WRITE, DATA]),
  ).toBe(-1);
});

test('an atomic read gives no order to other threads: it releases nothing', () => {
  const look: Access[] = [
    [0, PLAIN_WRITE, DATA],
    [0, ATOMIC_READ, FLAG],
  ];
  expect(lastRace(...look, [1, ATOMIC_READ, FLAG], [1, PLAIN_READ, DATA])).toBe(0);
  expect(lastRace(...look, [1, ATOMIC_UPDATE, FLAG], [1, PLAIN_READ, DATA])).toBe(0);
});

test('who reads what a store left is ordered after that store alone, after an update also after what it updated', () => {
  const publish: Access[] = [
    [0, PLAIN_WRITE, DATA],
    [0, ATOMIC_WRITE, FLAG],
  ];
  const read: Access[] = [
    [2, ATOMIC_READ, FLAG],
    [2, PLAIN_READ, DATA],
  ];
  expect(lastRace(...publish, [1, ATOMIC_WRITE, FLAG], ...read)).toBe(0);
  expect(lastRace(...publish, [1, ATOMIC_UPDATE, FLAG], ...read)).toBe(-1);
});

test('who reads what a plain write left is ordered after nobody', () => {
  expect(
    lastRace([0, PLAIN_WRITE, DATA], [0, ATOMIC_WRITE, FLAG], [0, PLAIN_WRITE, FLAG], [1, ATOMIC_READ, FLAG]),
  ).toBe(0);
});

test('a message orders all that was done before it, and nothing after', () => {
  const memory = new SharedMemory(2, 8);
  memory.access(0, PLAIN_WRITE, DATA);
  memory.join(1, 0);
  expect(memory.access(1, PLAIN_WRITE, DATA)).toBe(-1);
  expect(memory.access(0, PLAIN_READ, DATA)).toBe(1);
});

test('a rollback brings back values and clocks', () => {
  const memory = new SharedMemory(2, 8);
  const words = new Int32Array(memory.buffer, 0, 8);
  const write = (thread: number, kind: AccessKind, word: number, value: number) => {
    memory.save(word);
    words[word] = value;
    return memory.access(thread, kind, word);
  };
  write(0, PLAIN_WRITE, DATA, 7);
  const before = new Int32Array(memory.buffer).slice();
  const mark = memory.checkpoint();
  for (let round = 0; round < 2; round++) {
    write(0, ATOMIC_WRITE, FLAG, 1);
    memory.access(1, ATOMIC_READ, FLAG);
    expect(write(1, PLAIN_WRITE, DATA, 8)).toBe(-1);
    memory.rollback(mark);
    expect(new Int32Array(memory.buffer)).toEqual(before);
    expect(memory.access(1, PLAIN_READ, DATA)).toBe(0);
    memory.rollback(mark);
  }
  for (let count = 0; count < 5000; count++) write(0, ATOMIC_UPDATE, FLAG, count); // more than the undo log holds at first
  memory.rollback(mark);
  expect(new Int32Array(memory.buffer)).toEqual(before);
});
