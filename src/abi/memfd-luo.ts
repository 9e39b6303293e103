import { hex, PAGE_SIZE, type PhysicalAddress, physicalAddress } from '../memblock/index.js';
import {
  decodeKhoVmalloc,
  encodeKhoVmalloc,
  KHO_VMALLOC_SIZE,
  type KhoVmalloc,
  readKhoVmalloc,
  readVmallocBytes,
  type VmallocArea,
} from './kho-vmalloc.js';
import { type ReadableMemory, Structure, UntrustedMemory } from './structure.js';

/**
 * A memfd in LUO (Linux 7.2, include/linux/kho/abi/memfd.h and mm/memfd_luo.c).
 *
 * ```text
 *   memfd_luo_ser, 48 bytes in a page of its own      memfd_luo_folio_ser, 16 bytes
 *    0 u64 pos                                         0 u64 pfn | flags << 52
 *    8 u64 size        bytes                           8 u64 index   in pages of the file
 *   16 u32 seals
 *   20 u32 flags = 0
 *   24 u64 nr_folios
 *   32 kho_vmalloc ──▶ array of folios, in a vmalloc area
 * ```
 *
 * The structure is a folio of order 0 (kho_alloc_preserve()); each folio of the file is preserved at its own order,
 * which is not in the format: the tracker knows it. A file without folios has no area. Linux fills holes before it hands
 * a file over, but restores a file that has some.
 */
export interface MemfdHeader {
  /** The file position; below 2^63. */
  readonly pos: bigint;
  /** Bytes; at most 2^32 - 1 pages. */
  readonly size: number;
  /** F_SEAL_* of {@link MEMFD_SEALS}. */
  readonly seals: number;
  readonly folioCount: number;
  /** The array of folios; only looked at if there are any. */
  readonly folios: KhoVmalloc;
}

/** A folio of the file. */
export interface MemfdFolio {
  readonly address: PhysicalAddress;
  /** {@link MEMFD_FOLIO_DIRTY}, {@link MEMFD_FOLIO_UPTODATE}. */
  readonly flags: number;
  /** Where it begins in the file, in pages. */
  readonly index: number;
}

/** A memfd as it is found in memory. */
export interface Memfd {
  /** The page of its memfd_luo_ser. */
  readonly address: PhysicalAddress;
  readonly pos: bigint;
  readonly size: number;
  readonly seals: number;
  /** Flags of the file; there are none yet. */
  readonly flags: number;
  /** As they are listed; Linux lists them in ascending order of index. */
  readonly folios: readonly MemfdFolio[];
  /** The pages that the list itself takes. */
  readonly area: VmallocArea | undefined;
}

export const MEMFD_LUO_COMPATIBLE = 'memfd-v2';

/** Seals that memfd-v2 knows, by their names in lower case (include/uapi/linux/fcntl.h). */
export const MEMFD_SEALS = {
  seal: 0x01,
  shrink: 0x02,
  grow: 0x04,
  write: 0x08,
  future_write: 0x10,
  exec: 0x20,
} as const;
const ALL_SEALS = Object.values(MEMFD_SEALS).reduce((all, seal) => all | seal, 0);

export const MEMFD_FOLIO_DIRTY = 0x1;
export const MEMFD_FOLIO_UPTODATE = 0x2;
const KNOWN_FOLIO_FLAGS = MEMFD_FOLIO_DIRTY | MEMFD_FOLIO_UPTODATE;

/** Where the position stands in the structure: the one field that changes when a file is frozen. */
export const MEMFD_POS_AT = 0;
const SIZE_AT = MEMFD_POS_AT + 8;
const SEALS_AT = SIZE_AT + 8;
const FLAGS_AT = SEALS_AT + 4;
const FOLIO_COUNT_AT = FLAGS_AT + 4;
const FOLIOS_AT = FOLIO_COUNT_AT + 8;
export const MEMFD_LUO_SIZE = FOLIOS_AT + KHO_VMALLOC_SIZE;

const PFN_BITS = 52n;
const INDEX_AT = 8;
export const MEMFD_FOLIO_SIZE = 16;

/** The pages of the largest file: an unsigned int of them. */
const MAX_FILE_PAGES = 2 ** 32 - 1;
const MAX_POS = 2n ** 63n - 1n;

export function encodeMemfd({ pos, size, seals, folioCount, folios }: MemfdHeader): Uint8Array {
  const bytes = new Uint8Array(MEMFD_LUO_SIZE);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(MEMFD_POS_AT, pos, true);
  view.setBigUint64(SIZE_AT, BigInt(size), true);
  view.setUint32(SEALS_AT, seals, true);
  view.setBigUint64(FOLIO_COUNT_AT, BigInt(folioCount), true);
  bytes.set(encodeKhoVmalloc(folios), FOLIOS_AT);
  return bytes;
}

/** The array of folios. */
export function encodeMemfdFolios(folios: readonly MemfdFolio[]): Uint8Array {
  const words = new BigUint64Array(2 * folios.length);
  const view = new DataView(words.buffer);
  for (const [position, { address, flags, index }] of folios.entries()) {
    const at = position * MEMFD_FOLIO_SIZE;
    view.setBigUint64(at, BigInt(address / PAGE_SIZE) | (BigInt(flags) << PFN_BITS), true);
    view.setBigUint64(at + INDEX_AT, BigInt(index), true);
  }
  return new Uint8Array(words.buffer);
}

/** The structure alone. KHO_EIMAGE for a size, position, seal, flag or count that memfd-v2 does not have. */
export function readMemfdHeader(memory: ReadableMemory, address: PhysicalAddress): MemfdHeader & { flags: number } {
  const header = UntrustedMemory.of(memory).structure(address, MEMFD_LUO_SIZE, 'the memfd');
  const pos = header.u64(MEMFD_POS_AT);
  if (pos > MAX_POS) throw header.bad(`pos is ${pos}, above the limit of ${MAX_POS}`);
  const size = header.count(SIZE_AT, 'size', MAX_FILE_PAGES * PAGE_SIZE);
  const seals = header.u32(SEALS_AT);
  if ((seals & ~ALL_SEALS) !== 0) throw header.bad(`unknown seals ${hex((seals & ~ALL_SEALS) >>> 0)}`);
  const flags = header.u32(FLAGS_AT);
  if (flags !== 0) throw header.bad(`flags are ${hex(flags)}, expected 0`);
  const folioCount = header.count(FOLIO_COUNT_AT, 'nr_folios', Math.ceil(size / PAGE_SIZE));
  const empty: KhoVmalloc = { first: undefined, totalPages: 0, flags: 0, order: 0 };
  const descriptor = header.part('the folio list of the memfd', FOLIOS_AT, KHO_VMALLOC_SIZE);
  return { pos, size, seals, flags, folioCount, folios: folioCount === 0 ? empty : decodeKhoVmalloc(descriptor) };
}

/**
 * A whole memfd. KHO_EIMAGE also for a damaged list, a folio at page 0, with unknown flags, or outside of the file, and
 * for two folios at one index or one address; KHO_E2BIG for more than 2^22 folios. Whether folios overlap shows with their
 * orders, in memfdExtents().
 */
export function readMemfd(memory: ReadableMemory, address: PhysicalAddress): Memfd {
  const untrusted = UntrustedMemory.of(memory);
  const { pos, size, seals, flags, folioCount, folios: descriptor } = readMemfdHeader(untrusted, address);
  if (folioCount === 0) return { address, pos, size, seals, flags, folios: [], area: undefined };
  const what = `the folio list of the memfd at ${hex(address)}`;
  const area = readKhoVmalloc(untrusted, descriptor, what);
  const list = readVmallocBytes(untrusted, area, folioCount * MEMFD_FOLIO_SIZE, what);
  const pages = Math.ceil(size / PAGE_SIZE);
  const indices = new Set<number>();
  const addresses = new Set<number>();
  const folios: MemfdFolio[] = [];
  for (let position = 0; position < folioCount; position++) {
    const entry = new Structure(
      `folio ${position} of the memfd`,
      address,
      list.subarray(position * MEMFD_FOLIO_SIZE, (position + 1) * MEMFD_FOLIO_SIZE),
    );
    const folio = decodeFolio(entry, pages);
    if (indices.has(folio.index)) throw entry.bad(`there is a folio at index ${folio.index} already`);
    if (addresses.has(folio.address)) throw entry.bad(`${hex(folio.address)} is a folio of it already`);
    indices.add(folio.index);
    addresses.add(folio.address);
    folios.push(folio);
  }
  return { address, pos, size, seals, flags, folios, area };
}

function decodeFolio(entry: Structure, filePages: number): MemfdFolio {
  const word = entry.u64(0);
  const flags = Number(word >> PFN_BITS);
  if ((flags & ~KNOWN_FOLIO_FLAGS) !== 0) throw entry.bad(`unknown flags ${hex(flags & ~KNOWN_FOLIO_FLAGS)}`);
  const pfn = BigInt.asUintN(Number(PFN_BITS), word);
  if (pfn === 0n || pfn >= 2n ** 40n) throw entry.bad(`page frame ${hex(pfn)} cannot hold a folio`);
  const index = entry.u64(INDEX_AT);
  if (index >= BigInt(filePages)) throw entry.bad(`index ${index} is outside of the ${filePages} pages of the file`);
  return { address: physicalAddress(Number(pfn) * PAGE_SIZE), flags, index: Number(index) };
}
