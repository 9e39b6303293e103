import { KhoError } from '../errors.js';
import { hex, PAGE_SIZE, type PhysicalAddress } from '../memblock/index.js';
import { type ReadableMemory, UntrustedMemory, writeText } from './structure.js';

/**
 * File-lifecycle-bound objects of LUO: global state that preserved files share (Linux 7.2, include/linux/kho/abi/luo.h
 * and luo_flb.c). One page, a folio of order 0 (kho_alloc_preserve()).
 *
 * ```text
 *    0 u64 pgcnt = 1
 *    8 u64 count, at most 63
 *   16 entry 0, 64 bytes:   0 char name[48]   48 u64 data   56 u64 count
 *   80 entry 1 …
 * ```
 */
export interface LuoFlb {
  /** Names the handler in the next kernel; 1 to 47 bytes. */
  readonly compatible: string;
  /** Opaque to LUO. */
  readonly data: bigint;
  /** Preserved files that depend on it. */
  readonly count: bigint;
}

const PGCNT_AT = 0;
const COUNT_AT = 8;
const ENTRIES_AT = 16;
const NAME_AT = 0;
/** Bytes of an FLB's name with its NUL. */
export const LUO_FLB_NAME_SIZE = 48;
const DATA_AT = NAME_AT + LUO_FLB_NAME_SIZE;
const ENTRY_COUNT_AT = DATA_AT + 8;
const ENTRY_SIZE = ENTRY_COUNT_AT + 8;
const PAGES = 1;
export const LUO_FLB_MAX = Math.floor((PAGES * PAGE_SIZE - ENTRIES_AT) / ENTRY_SIZE);

/** The page. KHO_ENOSPC for more than {@link LUO_FLB_MAX}, KHO_EINVAL for a name that does not fit. */
export function encodeLuoFlbs(flbs: readonly LuoFlb[]): Uint8Array {
  if (flbs.length > LUO_FLB_MAX) {
    throw new KhoError('KHO_ENOSPC', `${flbs.length} FLBs: LUO has room for ${LUO_FLB_MAX}`);
  }
  const bytes = new Uint8Array(PAGES * PAGE_SIZE);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(PGCNT_AT, BigInt(PAGES), true);
  view.setBigUint64(COUNT_AT, BigInt(flbs.length), true);
  for (const [index, { compatible, data, count }] of flbs.entries()) {
    const at = ENTRIES_AT + index * ENTRY_SIZE;
    writeText(bytes, at + NAME_AT, LUO_FLB_NAME_SIZE, 'compatible of an FLB', compatible);
    view.setBigUint64(at + DATA_AT, data, true);
    view.setBigUint64(at + ENTRY_COUNT_AT, count, true);
  }
  return bytes;
}

/**
 * Reads the page. KHO_EIMAGE if it is outside of memory, has another size, too many entries, a name without an end or
 * one that is there twice, or an entry that no file depends on: Linux hands none of them over.
 */
export function readLuoFlbs(memory: ReadableMemory, address: PhysicalAddress): LuoFlb[] {
  const page = UntrustedMemory.of(memory).structure(address, PAGES * PAGE_SIZE, 'the FLB page');
  const pages = page.u64(PGCNT_AT);
  if (pages !== BigInt(PAGES)) throw page.bad(`pgcnt is ${pages}, expected ${PAGES}`);
  const count = page.count(COUNT_AT, 'count', LUO_FLB_MAX);
  const names = new Set<string>();
  return Array.from({ length: count }, (_, index) => {
    const entry = page.part(`FLB ${index}`, ENTRIES_AT + index * ENTRY_SIZE, ENTRY_SIZE);
    const compatible = entry.text(NAME_AT, LUO_FLB_NAME_SIZE, 'name');
    if (names.has(compatible)) throw entry.bad(`there is an FLB '${compatible}' already`);
    names.add(compatible);
    const users = entry.u64(ENTRY_COUNT_AT);
    if (users === 0n || users >= 2n ** 31n) throw entry.bad(`count is ${hex(users)}, which is no reference count`);
    return { compatible, data: entry.u64(DATA_AT), count: users };
  });
}
