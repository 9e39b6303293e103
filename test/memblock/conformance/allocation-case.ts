import { expect } from 'vitest';
import type { Memblock } from '#dist/memblock/memblock.js';
import { MemblockFlags, NUMA_NO_NODE } from '#dist/memblock/region.js';
import { at, bytesOf, END, LINE, type Span, smallMachine, spans } from './small-machine.js';

/** What is reserved before: plainly; by the kernel itself; or by the kernel for node `nid`. */
export interface Reservation {
  span: Span;
  kern?: boolean;
  nid?: number;
}

/** One allocation of a small machine, and what it must come to. Addresses are offsets into the machine's memory. */
export interface AllocationCase {
  /** The simulator's name of the case. */
  name: string;
  /** `both` runs it from the top down and from the bottom up with the same result; each is a case of its own. */
  direction: 'top-down' | 'bottom-up' | 'both';
  memory?: 'one piece' | 'nodes' | 'none';
  reserved?: readonly Reservation[];
  size: number;
  align?: number;
  minimum?: number;
  maximum?: number;
  nid?: number;
  /** Where the allocation is, or undefined where there is no room; then nothing has changed. */
  found?: number | ((direction: 'top-down' | 'bottom-up') => number);
  /** All that is reserved afterwards. By default the allocation alone, or what was reserved before. */
  leaves?: readonly Span[];
  /** The node that the region with the allocation bears. */
  recorded?: number;
}

/** A case with the name that the simulator prints for it, such as `memblock_alloc: top-down: alloc_…_generic_check`. */
export interface ConformanceCase {
  id: string;
  run(mode: { movableNode: boolean }): void;
}

/** What is in memory before: no byte of it is 0. */
const DIRTY = 0x55;

/** The call of the kernel that a suite tests. */
type Call = (memblock: Memblock, given: AllocationCase) => number | undefined;

/** A call, and whether it clears what it allocates. */
interface Suite {
  call: Call;
  clears: boolean;
}

export const alloc: Suite = { clears: true, call: (memblock, { size, align = LINE }) => memblock.alloc(size, align) };

export const allocRaw: Suite = {
  clears: false,
  call: (memblock, { size, align = LINE }) => memblock.allocRaw(size, align),
};

export const allocFrom: Suite = {
  clears: true,
  call: (memblock, { size, align = LINE, minimum = 0 }) => memblock.allocFrom(size, align, at(minimum)),
};

/** With a range of addresses, a node, or both; memblock_alloc_node() where there is no range. */
export const allocTryNid: Suite = {
  clears: true,
  call: (memblock, { size, align = LINE, minimum, maximum, nid = NUMA_NO_NODE }) =>
    minimum === undefined || maximum === undefined
      ? memblock.allocNode(size, align, nid)
      : memblock.allocTryNid(size, align, at(minimum), at(maximum), nid),
};

/** The same, not cleared; where there is no range as well. */
export const allocTryNidRaw: Suite = {
  clears: false,
  call: (memblock, { size, align = LINE, minimum, maximum, nid = NUMA_NO_NODE }) =>
    memblock.allocTryNidRaw(
      size,
      align,
      minimum === undefined ? undefined : at(minimum),
      maximum === undefined ? undefined : at(maximum),
      nid,
    ),
};

export const allocExactNidRaw: Suite = {
  clears: false,
  call: (memblock, { size, align = LINE, minimum = 0, maximum = END, nid = NUMA_NO_NODE }) =>
    memblock.allocExactNidRaw(size, align, at(minimum), at(maximum), nid),
};

/** The cases of one suite: `name` is the function of the kernel that it tests. */
export function allocationCases(name: string, suite: Suite, table: readonly AllocationCase[]): ConformanceCase[] {
  return table.flatMap((given) => {
    const one = (direction: 'top-down' | 'bottom-up', id: string): ConformanceCase => ({
      id: `${name}: ${id}`,
      run: ({ movableNode }) => check(given, direction, suite, movableNode),
    });
    if (given.direction !== 'both') return [one(given.direction, given.name)];
    return (['top-down', 'bottom-up'] as const).map((direction) => one(direction, `${direction}: ${given.name}`));
  });
}

function check(
  given: AllocationCase,
  direction: 'top-down' | 'bottom-up',
  { call, clears }: Suite,
  movableNode: boolean,
): void {
  const { memory = 'one piece', reserved = [], size, recorded } = given;
  const bytes = new Uint8Array(END).fill(DIRTY);
  const memblock = smallMachine(memory, { bottomUp: direction === 'bottom-up', movableNode, bytes });
  for (const { span, kern = false, nid } of reserved) {
    memblock.reserve(at(span[0]), span[1], { nid, flags: kern ? MemblockFlags.RSRV_KERN : MemblockFlags.NONE });
  }
  const before = memblock.snapshot();

  const address = call(memblock, given);

  expect(memblock.snapshot().memory).toEqual(before.memory);
  const found = typeof given.found === 'function' ? given.found(direction) : given.found;
  if (found === undefined) {
    expect(address).toBeUndefined();
    expect(memblock.snapshot()).toEqual(before);
    expect(bytes.every((byte) => byte === DIRTY)).toBe(true);
    return;
  }
  expect(address).toBe(at(found));
  const leaves = given.leaves ?? [[found, size] as const];
  expect(spans(memblock.reserved)).toEqual(leaves);
  expect(memblock.reservedSize()).toBe(bytesOf(leaves));
  const region = memblock.reserved.regions[memblock.reserved.search(at(found))];
  const isTaken = (offset: number): boolean => offset >= found && offset < found + size;
  expect(bytes.every((byte, offset) => byte === (clears && isTaken(offset) ? 0 : DIRTY))).toBe(true);
  expect(region).toMatchObject({ flags: MemblockFlags.RSRV_KERN, nid: recorded ?? NUMA_NO_NODE });
}
