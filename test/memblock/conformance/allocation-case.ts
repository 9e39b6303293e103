import { expect } from 'vitest';
import { MEMBLOCK_ALLOC_ACCESSIBLE, type Memblock } from '#dist/memblock/memblock.js';
import { MemblockFlags, NUMA_NO_NODE } from '#dist/memblock/region.js';
import { at, bytesOf, LINE, type Span, smallMachine, spans } from './small-machine.js';

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

/** What an allocation call does with these; every memblock_alloc*() but the exact one comes down to allocTryNid(). */
type Call = (memblock: Memblock, given: AllocationCase) => number | undefined;

const call =
  (exactNid: boolean): Call =>
  (memblock, { size, align = LINE, minimum, maximum, nid = NUMA_NO_NODE }) =>
    memblock.allocTryNid(
      size,
      align,
      minimum === undefined ? undefined : at(minimum),
      maximum === undefined ? MEMBLOCK_ALLOC_ACCESSIBLE : at(maximum),
      nid,
      exactNid,
    );

/** memblock_alloc(), _from(), _try_nid() and their raw forms (which do not clear; here no allocation touches memory). */
export const tryNid: Call = call(false);
/** memblock_alloc_exact_nid_raw(): that node or none. */
export const exactNid: Call = call(true);

/** The cases of one suite: `suite` is the function of the kernel that it tests. */
export function allocationCases(suite: string, alloc: Call, table: readonly AllocationCase[]): ConformanceCase[] {
  return table.flatMap((given) => {
    const one = (direction: 'top-down' | 'bottom-up', id: string): ConformanceCase => ({
      id: `${suite}: ${id}`,
      run: ({ movableNode }) => check(given, direction, alloc, movableNode),
    });
    if (given.direction !== 'both') return [one(given.direction, given.name)];
    return (['top-down', 'bottom-up'] as const).map((direction) => one(direction, `${direction}: ${given.name}`));
  });
}

function check(given: AllocationCase, direction: 'top-down' | 'bottom-up', alloc: Call, movableNode: boolean): void {
  const { memory = 'one piece', reserved = [], size, recorded } = given;
  const memblock = smallMachine(memory, { bottomUp: direction === 'bottom-up', movableNode });
  for (const { span, kern = false, nid } of reserved) {
    memblock.reserve(at(span[0]), span[1], { nid, flags: kern ? MemblockFlags.RSRV_KERN : MemblockFlags.NONE });
  }
  const before = memblock.snapshot();

  const address = alloc(memblock, given);

  expect(memblock.snapshot().memory).toEqual(before.memory);
  const found = typeof given.found === 'function' ? given.found(direction) : given.found;
  if (found === undefined) {
    expect(address).toBeUndefined();
    expect(memblock.snapshot()).toEqual(before);
    return;
  }
  expect(address).toBe(at(found));
  const leaves = given.leaves ?? [[found, size] as const];
  expect(spans(memblock.reserved)).toEqual(leaves);
  expect(memblock.reservedSize()).toBe(bytesOf(leaves));
  const region = memblock.reserved.regions[memblock.reserved.search(at(found))];
  expect(region).toMatchObject({ flags: MemblockFlags.RSRV_KERN, nid: recorded ?? NUMA_NO_NODE });
}
