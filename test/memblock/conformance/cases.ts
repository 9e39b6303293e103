import { ALLOC_CASES } from './alloc-cases.js';
import type { ConformanceCase } from './allocation-case.js';
import { GROWTH_CASES } from './growth-cases.js';
import { NODE_CASES } from './node-cases.js';
import { RANGE_CASES } from './range-cases.js';
import { REGION_CASES } from './region-cases.js';

/** The modules with the cases of the kernel's memblock simulator: what is in none of them is not tested. */
export const MODULES = {
  'region-cases': REGION_CASES,
  'growth-cases': GROWTH_CASES,
  'alloc-cases': ALLOC_CASES,
  'range-cases': RANGE_CASES,
  'node-cases': NODE_CASES,
} as const satisfies Record<string, readonly ConformanceCase[]>;

export const CASES: readonly ConformanceCase[] = Object.values(MODULES).flat();
