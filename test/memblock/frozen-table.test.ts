import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { physicalAddress as at, PAGE_SIZE } from '#dist/memblock/address.js';
import { ExtentTable } from '#dist/memblock/extent.js';
import { FROZEN_STATES } from '#dist/memblock/frozen-layout.js';
import type { FrozenShard } from '#dist/memblock/frozen-shard.js';
import { FrozenTable } from '#dist/memblock/frozen-table.js';
import { LINE_SIZE, LINES_PER_PAGE } from '#dist/memblock/line-digest.js';
import { SharedPhysicalMemory } from '#dist/memblock/physical-memory.js';
import { RadixTree } from '#dist/memblock/radix-tree.js';
import { thrown } from './thrown.js';

const page = (number: number) => at(number * PAGE_SIZE);

/** Shard 1 has two extents of 3 and 2 pages; the first lies over a border of nodes, so its words are in two arrays. */
const GRANTS = [
  { pages: 2, ranges: [{ base: page(1), pages: 2 }] },
  {
    pages: 5,
    ranges: [
      { base: page(6), pages: 3 },
      { base: page(12), pages: 2 },
    ],
  },
  { pages: 1, ranges: [{ base: page(15), pages: 1 }] },
];
const PAGES = [6, 7, 8, 12, 13].map(page);

function host() {
  const memory = SharedPhysicalMemory.create([
    { base: page(0), size: 8 * PAGE_SIZE, nid: 0, backed: true },
    { base: page(8), size: 56 * PAGE_SIZE, nid: 1, backed: true },
  ]);
  const extents = ExtentTable.create(GRANTS);
  const table = FrozenTable.create(GRANTS);
  table.touch();
  const shard = (index: number, shared = false): FrozenShard =>
    FrozenTable.attach(table.handle).shard(memory, extents.extent(index), shared);
  return { memory, extents, table, shard };
}

/** What a page should hold, and which of its lines were changed by somebody else before their owner wrote to them. */
interface Expected {
  readonly bytes: Uint8Array;
  readonly late: Set<number>;
}

const where = fc.record({ page: fc.nat(PAGES.length - 1), offset: fc.nat(PAGE_SIZE - 1) });
const bytes = fc.uint8Array({ minLength: 1, maxLength: 2 * PAGE_SIZE });
const step = fc.oneof(
  fc.record({ op: fc.constantFrom('freeze' as const, 'forget' as const, 'open' as const), where }),
  fc.record({ op: fc.constant('write' as const), where, bytes }),
  fc.record({ op: fc.constant('fill' as const), where, bytes }),
  fc.record({ op: fc.constant('late' as const), where, bytes: fc.uint8Array({ minLength: 1, maxLength: 80 }) }),
);

test.each([false, true])('digests agree with copies of the pages (shared with other threads: %s)', (shared) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const { memory, shard } = host();
      const frozen = shard(1, shared);
      const other = shard(0);
      other.freeze(page(1), 2);
      const model = new Map<number, Expected>();
      const freeze = (address: number) =>
        model.set(address, { bytes: memory.read(at(address), PAGE_SIZE), late: new Set() });
      for (const { op, where, ...rest } of steps) {
        const target = PAGES[where.page] as number;
        const extent = target < page(12) ? page(9) : page(14);
        const start = at(target + where.offset);
        const given = 'bytes' in rest ? rest.bytes.subarray(0, extent - start) : new Uint8Array();
        if (op === 'freeze') {
          frozen.freeze(at(target), 1);
          freeze(target);
        } else if (op === 'open') {
          frozen.freezeOpen(at(target), 1);
          if (!model.has(target)) freeze(target);
        } else if (op === 'forget') {
          frozen.forget(at(target), 1);
          model.delete(target);
        } else if (op === 'late') {
          memory.write(start, given);
        } else {
          const written = op === 'write' ? given : new Uint8Array(given.length).fill(given[0] ?? 0);
          for (const [address, expected] of model) writeByRight(memory, address, expected, start, written);
          if (op === 'write') frozen.write(start, given);
          else frozen.fill(start, given.length, given[0] ?? 0);
          expect(memory.read(start, given.length)).toEqual(written);
        }
      }
      for (const address of PAGES) {
        expect(frozen.isFrozen(address)).toBe(model.has(address));
        expect(frozen.firstDifference(address), `page at ${address}`).toBe(
          firstWrong(memory, address, model.get(address)),
        );
      }
      expect([other.firstDifference(page(1)), other.firstDifference(page(2))]).toEqual([-1, -1]);
    }),
  );
});

function writeByRight(
  memory: SharedPhysicalMemory,
  address: number,
  { bytes, late }: Expected,
  start: number,
  written: Uint8Array,
): void {
  const now = memory.read(at(address), PAGE_SIZE);
  const touched = new Set<number>();
  for (const [index, value] of written.entries()) {
    const offset = start + index - address;
    if (offset < 0 || offset >= PAGE_SIZE) continue;
    touched.add(Math.floor(offset / LINE_SIZE));
    if (!equalLine(now, bytes, Math.floor(offset / LINE_SIZE))) late.add(Math.floor(offset / LINE_SIZE));
    bytes[offset] = value;
    now[offset] = value;
  }
  // What is written by right is compared first; all else of the line is as it is now.
  for (const line of touched) bytes.set(now.subarray(line * LINE_SIZE, (line + 1) * LINE_SIZE), line * LINE_SIZE);
}

function equalLine(a: Uint8Array, b: Uint8Array, line: number): boolean {
  const of = (bytes: Uint8Array) => Buffer.from(bytes.subarray(line * LINE_SIZE, (line + 1) * LINE_SIZE));
  return of(a).equals(of(b));
}

function firstWrong(memory: SharedPhysicalMemory, address: number, expected: Expected | undefined): number {
  if (expected === undefined) return -1;
  const now = memory.read(at(address), PAGE_SIZE);
  for (let line = 0; line < LINES_PER_PAGE; line++) {
    if (expected.late.has(line) || !equalLine(now, expected.bytes, line)) return line * LINE_SIZE;
  }
  return -1;
}

test('a write by right does not hide one that came too late', () => {
  const { memory, shard } = host();
  const frozen = shard(1);
  frozen.freeze(page(6), 3);
  memory.write(at(page(7) + 3 * LINE_SIZE + 5), Uint8Array.of(1));
  frozen.fill(page(7), PAGE_SIZE, 9); // covers every trace of it
  frozen.write(at(page(7) + 3 * LINE_SIZE), new Uint8Array(8)); // and once more
  expect([page(6), page(7), page(8)].map((address) => frozen.firstDifference(address))).toEqual([-1, 192, -1]);
});

test('only what is handed over is visited, in pages that are frozen', () => {
  const { memory, extents, shard } = host();
  let next = 40;
  const tracker = RadixTree.create(memory, () => page(next++));
  const frozen = shard(1);
  for (const { base, pages } of extents.extent(1).ranges) tracker.ensureRange(base, pages, 10);
  tracker.set(page(6), 1);
  tracker.set(page(13), 0);
  frozen.freeze(page(7), 2);
  frozen.freeze(page(12), 2);
  const visited: number[] = [];
  frozen.eachPreserved(tracker, (address) => visited.push(address / PAGE_SIZE));
  // 6 is not frozen, 8 and 12 are not preserved.
  expect(visited).toEqual([7, 13]);
});

test('no shard sees the digests of another', () => {
  const { shard } = host();
  const [first, second, third] = [shard(0), shard(1), shard(2)];
  first.freeze(page(1), 2);
  third.freeze(page(15), 1);
  expect(PAGES.map((address) => second.isFrozen(address))).toEqual([false, false, false, false, false]);
  second.freeze(page(6), 3);
  second.forgetAll();
  expect([first.isFrozen(page(1)), first.isFrozen(page(2)), third.isFrozen(page(15))]).toEqual([true, true, true]);
  expect(thrown(() => second.freeze(page(1), 1))).toMatchObject({ code: 'KHO_EINVAL' });
  expect(thrown(() => second.isFrozen(page(9)))).toMatchObject({ code: 'KHO_EINVAL' });
});

test('two threads write to the same lines of a frozen page, and the digests stay true', async () => {
  const { memory, extents, table, shard } = host();
  const frozen = shard(0, true);
  frozen.freeze(page(1), 2);
  const barrier = new SharedArrayBuffer(4);
  const common = { memory: memory.handle, extents: extents.handle, table: table.handle, barrier, writes: 20_000 };
  const done = [0, 1].map((parity) => {
    const workerData = { ...common, address: page(1), parity };
    const worker = new Worker(new URL('../fixtures/frozen-writer.js', import.meta.url), { workerData });
    return new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  });
  expect(await Promise.all(done)).toEqual(['done', 'done']);
  expect([frozen.firstDifference(page(1)), frozen.firstDifference(page(2))]).toEqual([-1, -1]);
});

test('a page that a dead thread has kept is an error, not a wait for ever', () => {
  const { table, shard } = host();
  const frozen = shard(2, true);
  const words = new Int32Array(table.handle);
  words[(words[FROZEN_STATES] as number) + 7] = 2; // BUSY; the last of 8 pages
  expect(thrown(() => frozen.write(page(15), Uint8Array.of(1)))).toMatchObject({ code: 'KHO_EAGAIN' });
});
