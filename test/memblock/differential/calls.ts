import { type PageFrame, type PhysicalAddress, physicalAddress } from '#dist/memblock/address.js';
import { NoRoomToGrow } from '#dist/memblock/double-array.js';
import type { Memblock } from '#dist/memblock/memblock.js';
import { NUMA_NO_NODE } from '#dist/memblock/region.js';
import { arraysOf, WordDigest } from './digest.js';

/** What an argument stands for; a generator makes one by it. */
export type ArgumentKind =
  | 'base'
  | 'size'
  | 'align'
  | 'end'
  | 'limit'
  | 'nid'
  | 'memory flags'
  | 'reserved flags'
  | 'search flags'
  | 'type'
  | 'switch'
  | 'pfn'
  | 'small size'
  | 'trim';

/** One function of the kernel and ours. */
export interface Call {
  /** How often it is called, in proportion to the others. */
  readonly weight: number;
  readonly kinds: readonly ArgumentKind[];
  /** Returns what the kernel's function returns, as driver.c prints it. */
  run(memblock: Memblock, args: readonly number[]): string;
}

const at = (value: number): PhysicalAddress => physicalAddress(value);
const address = (found: PhysicalAddress | undefined): string => (found ?? 0).toString(16);
const truth = (value: boolean): string => (value ? '1' : '0');
const number = (value: number): string => value.toString(16);

/** A function that returns 0 or -ENOMEM. */
function errno(weight: number, kinds: readonly ArgumentKind[], run: (m: Memblock, a: readonly number[]) => void): Call {
  return {
    weight,
    kinds,
    run(memblock, args) {
      try {
        run(memblock, args);
        return '0';
      } catch (error) {
        if (error instanceof NoRoomToGrow) return '-12';
        throw error;
      }
    },
  };
}

/** A function that returns nothing, whether or not an array found room. */
function nothing(
  weight: number,
  kinds: readonly ArgumentKind[],
  run: (m: Memblock, a: readonly number[]) => void,
): Call {
  const call = errno(weight, kinds, run);
  return {
    ...call,
    run(memblock, args) {
      call.run(memblock, args);
      return 'void';
    },
  };
}

function value(
  weight: number,
  kinds: readonly ArgumentKind[],
  run: (m: Memblock, a: readonly number[]) => string,
): Call {
  return { weight, kinds, run };
}

function iteration(
  weight: number,
  kinds: readonly ArgumentKind[],
  run: (m: Memblock, a: readonly number[]) => Iterable<{ start: number; end: number; nid: number }>,
  hasNode = true,
): Call {
  return value(weight, kinds, (memblock, args) => {
    const digest = new WordDigest();
    let count = 0;
    for (const { start, end, nid } of run(memblock, args)) {
      count++;
      digest.value(start);
      digest.value(end);
      digest.word(hasNode ? nid : 0);
    }
    return `${count.toString(16)}:${digest}`;
  });
}

const RANGE = ['base', 'size'] as const;
const ALLOCATION = ['small size', 'align'] as const;
const PLACED = ['small size', 'align', 'base', 'end', 'nid'] as const;

/** Every function that is compared, by the name that driver.c knows. */
export const CALLS: Readonly<Record<string, Call>> = {
  memblock_add: errno(20, RANGE, (m, [base, size]) => m.add(at(base), size)),
  memblock_add_node: errno(20, [...RANGE, 'nid', 'memory flags'], (m, [base, size, nid, flags]) =>
    m.addNode(at(base), size, nid, flags),
  ),
  memblock_remove: errno(12, RANGE, (m, [base, size]) => m.remove(at(base), size)),
  memblock_phys_free: errno(18, RANGE, (m, [base, size]) => m.free(at(base), size)),
  memblock_reserve: errno(20, RANGE, (m, [base, size]) => m.reserve(at(base), size)),
  memblock_reserve_kern: errno(12, RANGE, (m, [base, size]) => m.reserveKern(at(base), size)),
  __memblock_reserve: errno(12, [...RANGE, 'nid', 'reserved flags'], (m, [base, size, nid, flags]) =>
    m.reserve(at(base), size, { nid, flags }),
  ),
  memblock_mark_hotplug: errno(3, RANGE, (m, [base, size]) => m.markHotplug(at(base), size)),
  memblock_clear_hotplug: errno(3, RANGE, (m, [base, size]) => m.clearHotplug(at(base), size)),
  memblock_mark_mirror: errno(3, RANGE, (m, [base, size]) => m.markMirror(at(base), size)),
  memblock_mark_nomap: errno(3, RANGE, (m, [base, size]) => m.markNomap(at(base), size)),
  memblock_clear_nomap: errno(3, RANGE, (m, [base, size]) => m.clearNomap(at(base), size)),
  memblock_mark_kho_scratch: errno(6, RANGE, (m, [base, size]) => m.markKhoScratch(at(base), size)),
  memblock_clear_kho_scratch: errno(3, RANGE, (m, [base, size]) => m.clearKhoScratch(at(base), size)),
  memblock_reserved_mark_noinit: errno(4, RANGE, (m, [base, size]) => m.reservedMarkNoinit(at(base), size)),
  memblock_reserved_mark_kern: errno(4, RANGE, (m, [base, size]) => m.reservedMarkKern(at(base), size)),
  memblock_set_node: errno(6, [...RANGE, 'type', 'nid'], (m, [base, size, type, nid]) =>
    m.setNode(at(base), size, type === 0 ? m.memory : m.reserved, nid),
  ),
  memblock_trim_memory: nothing(2, ['trim'], (m, [align]) => m.trimMemory(align)),
  memblock_enforce_memory_limit: nothing(1, ['limit'], (m, [limit]) => m.enforceMemoryLimit(limit)),
  memblock_cap_memory_range: nothing(1, RANGE, (m, [base, size]) => m.capMemoryRange(at(base), size)),
  memblock_mem_limit_remove_map: nothing(1, ['limit'], (m, [limit]) => m.memLimitRemoveMap(limit)),
  memblock_set_current_limit: nothing(3, ['end'], (m, [limit]) => {
    m.currentLimit = at(limit);
  }),
  memblock_get_current_limit: value(1, [], (m) => number(m.currentLimit)),
  memblock_set_bottom_up: nothing(3, ['switch'], (m, [on]) => {
    m.bottomUp = on !== 0;
  }),
  movable_node: nothing(2, ['switch'], (m, [on]) => {
    m.movableNode = on !== 0;
  }),
  mirrored_kernelcore: nothing(2, ['switch'], (m, [on]) => {
    m.mirroredKernelcore = on !== 0;
  }),
  memblock_set_kho_scratch_only: nothing(2, [], (m) => m.setKhoScratchOnly()),
  memblock_clear_kho_scratch_only: nothing(3, [], (m) => m.clearKhoScratchOnly()),
  memblock_allow_resize: nothing(4, [], (m) => m.allowResize()),
  memblock_phys_alloc: value(8, ALLOCATION, (m, [size, align]) => address(m.physAlloc(size, align))),
  memblock_phys_alloc_range: value(8, [...ALLOCATION, 'base', 'end'], (m, [size, align, start, end]) =>
    address(m.physAllocRange(size, align, at(start), at(end))),
  ),
  memblock_phys_alloc_try_nid: value(6, [...ALLOCATION, 'nid'], (m, [size, align, nid]) =>
    address(m.physAllocTryNid(size, align, nid)),
  ),
  memblock_alloc_range_nid: value(8, [...PLACED, 'switch'], (m, [size, align, start, end, nid, exact]) =>
    address(m.allocRangeNid(size, align, at(start), at(end), nid, exact !== 0)),
  ),
  memblock_alloc_exact_nid_raw: value(5, PLACED, (m, [size, align, start, end, nid]) =>
    address(m.allocExactNidRaw(size, align, at(start), at(end), nid)),
  ),
  memblock_alloc_try_nid_raw: value(4, PLACED, (m, [size, align, start, end, nid]) =>
    address(m.allocTryNidRaw(size, align, at(start), at(end), nid)),
  ),
  memblock_alloc_try_nid: value(4, PLACED, (m, [size, align, start, end, nid]) =>
    address(m.allocTryNid(size, align, at(start), at(end), nid)),
  ),
  memblock_alloc: value(4, ALLOCATION, (m, [size, align]) => address(m.alloc(size, align))),
  memblock_alloc_raw: value(2, ALLOCATION, (m, [size, align]) => address(m.allocRaw(size, align))),
  memblock_alloc_or_panic: value(1, ALLOCATION, (m, [size, align]) => address(m.allocOrPanic(size, align))),
  memblock_alloc_from: value(4, [...ALLOCATION, 'base'], (m, [size, align, minimum]) =>
    address(m.allocFrom(size, align, at(minimum))),
  ),
  memblock_alloc_low: value(3, ALLOCATION, (m, [size, align]) => address(m.allocLow(size, align))),
  memblock_alloc_node: value(4, [...ALLOCATION, 'nid'], (m, [size, align, nid]) =>
    address(m.allocNode(size, align, nid)),
  ),
  memblock_find_in_range: value(4, ['base', 'end', 'small size'], (m, [start, end, size]) =>
    address(m.findForArray(at(start), at(end), size)),
  ),
  memblock_find_in_range_node: value(
    5,
    ['small size', 'align', 'base', 'end', 'nid', 'search flags'],
    (m, [size, align, start, end, nid, flags]) => address(m.findInRange(size, align, at(start), at(end), nid, flags)),
  ),
  memblock_is_memory: value(2, ['base'], (m, [base]) => truth(m.isMemory(at(base)))),
  memblock_is_map_memory: value(2, ['base'], (m, [base]) => truth(m.isMapMemory(at(base)))),
  memblock_is_kho_scratch_memory: value(2, ['base'], (m, [base]) => truth(m.isKhoScratchMemory(at(base)))),
  memblock_is_reserved: value(2, ['base'], (m, [base]) => truth(m.isReserved(at(base)))),
  memblock_is_region_memory: value(3, RANGE, (m, [base, size]) => truth(m.isRegionMemory(at(base), size))),
  memblock_is_region_reserved: value(3, RANGE, (m, [base, size]) => truth(m.isRegionReserved(at(base), size))),
  memblock_overlaps_region: value(2, ['type', ...RANGE], (m, [type, base, size]) =>
    truth(m.overlapsRegion(type === 0 ? m.memory : m.reserved, at(base), size)),
  ),
  memblock_search_pfn_nid: value(2, ['pfn'], (m, [pfn]) => {
    const found = m.searchPfnNid(pfn as PageFrame);
    return found === undefined ? `${NUMA_NO_NODE},0,0` : `${found.nid},${number(found.start)},${number(found.end)}`;
  }),
  memblock_validate_numa_coverage: value(2, ['limit'], (m, [limit]) => truth(m.validateNumaCoverage(limit))),
  memblock_phys_mem_size: value(1, [], (m) => number(m.physMemSize())),
  memblock_reserved_size: value(1, [], (m) => number(m.reservedSize())),
  memblock_reserved_kern_size: value(3, ['end', 'nid'], (m, [limit, nid]) =>
    number(m.reservedKernSize(at(limit), nid)),
  ),
  memblock_estimated_nr_free_pages: value(1, [], (m) => number(m.estimatedNrFreePages())),
  memblock_start_of_DRAM: value(1, [], (m) => number(m.startOfDram())),
  memblock_end_of_DRAM: value(1, [], (m) => number(m.endOfDram())),
  for_each_free_mem_range: iteration(4, ['nid', 'search flags'], (m, [nid, flags]) => m.freeRanges(nid, flags)),
  for_each_free_mem_range_reverse: iteration(4, ['nid', 'search flags'], (m, [nid, flags]) =>
    m.freeRangesReverse(nid, flags),
  ),
  for_each_mem_range: iteration(1, [], (m) => m.memRanges(), false),
  for_each_mem_range_rev: iteration(1, [], (m) => m.memRangesReverse(), false),
  for_each_reserved_mem_range: iteration(1, [], (m) => m.reservedRanges(), false),
  for_each_mem_pfn_range: iteration(2, ['nid'], (m, [nid]) => m.memPfnRanges(nid)),
  /** Not generated: both arrays in full, for whoever has to look at a divergence. */
  arrays: value(0, [], arraysOf),
};
