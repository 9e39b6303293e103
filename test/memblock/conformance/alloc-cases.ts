import {
  type AllocationCase,
  alloc,
  allocationCases,
  allocFrom,
  allocRaw,
  type ConformanceCase,
  type Reservation,
} from './allocation-case.js';
import { END, LINE, type Span } from './small-machine.js';

/** Reserved pieces of 1 KiB with gaps of 256 bytes before each; the last reaches beyond the end of memory. */
function smallGaps(): Reservation[] {
  const pieces: Reservation[] = [];
  for (let end = 0; end < END; end += 256 + 1024) pieces.push({ span: [end + 256, 1024] });
  return pieces;
}

const kern = (...span: Span): Reservation => ({ span, kern: true });
const plain = (...span: Span): Reservation => ({ span });

// A reservation before the allocation merges with it only if it is the kernel's too.
const ALLOC: AllocationCase[] = [
  { name: 'alloc_top_down_simple_check', direction: 'top-down', size: 2, found: END - LINE },
  { name: 'alloc_bottom_up_simple_check', direction: 'bottom-up', size: 2, found: 0 },
  {
    name: 'alloc_top_down_disjoint_check',
    direction: 'top-down',
    reserved: [plain(END - 2, 2)],
    size: 16,
    align: 64,
    found: END - 64,
    leaves: [
      [END - 64, 16],
      [END - 2, 2],
    ],
  },
  {
    name: 'alloc_bottom_up_disjoint_check',
    direction: 'bottom-up',
    reserved: [plain(2, 2)],
    size: 16,
    align: 64,
    found: 64,
    leaves: [
      [2, 2],
      [64, 16],
    ],
  },
  {
    name: 'alloc_top_down_before_check',
    direction: 'top-down',
    reserved: [kern(END - 544, 32)],
    size: 512,
    found: END - 512,
    leaves: [[END - 544, 544]],
  },
  {
    name: 'alloc_bottom_up_before_check',
    direction: 'bottom-up',
    reserved: [kern(512, 128)],
    size: 512,
    found: 0,
    leaves: [[0, 640]],
  },
  {
    name: 'alloc_top_down_after_check',
    direction: 'top-down',
    reserved: [kern(END - 32, 8)],
    size: 512,
    found: END - 544,
    leaves: [[END - 544, 520]],
  },
  {
    name: 'alloc_bottom_up_after_check',
    direction: 'bottom-up',
    reserved: [kern(32, 64)],
    size: 512,
    found: 96,
    leaves: [[32, 576]],
  },
  {
    name: 'alloc_top_down_second_fit_check',
    direction: 'top-down',
    reserved: [kern(END - 512, 512), kern(END - 1024, 256)],
    size: 1024,
    found: END - 2048,
    leaves: [
      [END - 2048, 1280],
      [END - 512, 512],
    ],
  },
  {
    name: 'alloc_bottom_up_second_fit_check',
    direction: 'bottom-up',
    reserved: [kern(0, 512), kern(1024, 256)],
    size: 1024,
    found: 1280,
    leaves: [
      [0, 512],
      [1024, 1280],
    ],
  },
  { name: 'alloc_small_gaps_generic_check', direction: 'both', reserved: smallGaps(), size: 1024 },
  {
    // 32 bytes are free at either end, 64 in the middle.
    name: 'alloc_in_between_generic_check',
    direction: 'both',
    reserved: [kern(16416, 16320), kern(32, 16320)],
    size: 64,
    found: 16352,
    leaves: [[32, END - 64]],
  },
  { name: 'alloc_all_reserved_generic_check', direction: 'both', reserved: [plain(0, END)], size: 256 },
  { name: 'alloc_no_space_generic_check', direction: 'both', reserved: [plain(0, END - 256)], size: 1024 },
  {
    name: 'alloc_limited_space_generic_check',
    direction: 'both',
    reserved: [kern(0, END - 256)],
    size: 256,
    found: END - 256,
    leaves: [[0, END]],
  },
  { name: 'alloc_no_memory_generic_check', direction: 'both', memory: 'none', size: 1024 },
  { name: 'alloc_too_large_generic_check', direction: 'both', size: END + 2 },
];

const FROM: AllocationCase[] = [
  { name: 'alloc_from_simple_generic_check', direction: 'both', minimum: END - 32, size: 16, found: END - 32 },
  { name: 'alloc_from_misaligned_generic_check', direction: 'both', minimum: END - 63, size: 32, found: END - 32 },
  // Too little room above the minimum: it is dropped.
  { name: 'alloc_from_top_down_high_addr_check', direction: 'top-down', minimum: END - 16, size: 32, found: END - 32 },
  { name: 'alloc_from_bottom_up_high_addr_check', direction: 'bottom-up', minimum: END - 8, size: 32, found: 0 },
  {
    name: 'alloc_from_top_down_no_space_above_check',
    direction: 'top-down',
    reserved: [kern(END - 64, 2)],
    minimum: END - 64,
    size: 64,
    found: END - 128,
    leaves: [[END - 128, 66]],
  },
  {
    name: 'alloc_from_bottom_up_no_space_above_check',
    direction: 'bottom-up',
    reserved: [plain(96, END - 128)],
    minimum: 128,
    size: 64,
    found: 0,
    leaves: [
      [0, 64],
      [96, END - 128],
    ],
  },
  // A minimum below all memory.
  {
    name: 'alloc_from_top_down_min_addr_cap_check',
    direction: 'top-down',
    reserved: [kern(64, END - 64)],
    minimum: -96,
    size: 64,
    found: 0,
    leaves: [[0, END]],
  },
  { name: 'alloc_from_bottom_up_min_addr_cap_check', direction: 'bottom-up', minimum: -96, size: 64, found: 0 },
];

/** Allocation without a range or a node, and with a minimum alone (alloc_api, alloc_helpers_api of the simulator). */
export const ALLOC_CASES: readonly ConformanceCase[] = [
  ...allocationCases('memblock_alloc', alloc, ALLOC),
  ...allocationCases('memblock_alloc_raw', allocRaw, ALLOC),
  ...allocationCases('memblock_alloc_from', allocFrom, FROM),
];
