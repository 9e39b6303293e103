/**
 * Second-stage page tables of Intel VT-d with four levels (VT-d specification, 9.8): 48-bit I/O virtual addresses.
 *
 * ```text
 *   iova   47      39 38      30 29      21 20      12 11     0
 *          | level 4 | level 3  | level 2  | level 1  | offset |    9 bits a level
 *
 *   root --> [512 entries] --> [512] --> [512] --> [512] --> 4 KiB page
 *                                          '--> 2 MiB page, if bit 7 is set
 *
 *   entry  63        52 51                12 11   8  7  6    2  1  0
 *          |     0     | physical address   |  0   | SP |  0  | W | R |      u64, little-endian; 0 = not present
 * ```
 *
 * Entries are handled as numbers: an address has at most 52 bits, so they are exact, and the flags are what remains of
 * a division by the page size.
 */
import {
  after,
  hex,
  KhoError,
  type MemoryReader,
  type MemoryWriter,
  PAGE_SIZE,
  type PhysicalAddress,
} from '../driver.js';

export const LEVELS = 4;
const ENTRIES = 512;
const ENTRY_SIZE = 8;
const READ = 1;
const WRITE = 2;
const SUPERPAGE = 0x80;
const LEVEL_OF_SUPERPAGE = 2;

export const SUPERPAGE_SIZE = ENTRIES * PAGE_SIZE;
/** The end of the I/O virtual address space: 2^48. */
export const IOVA_END = coverage(LEVELS) * ENTRIES;

/** A leaf of the table: what one I/O virtual page leads to. */
export interface Mapping {
  readonly iova: number;
  /** {@link PAGE_SIZE} or {@link SUPERPAGE_SIZE}. */
  readonly size: number;
  readonly address: PhysicalAddress;
  readonly write: boolean;
}

/**
 * Adds a mapping. Missing tables are allocated by `allocateTable` (one page each, its content does not matter).
 * KHO_EINVAL unless iova and address are multiples of the size and inside of their spaces, KHO_EEXIST if something is
 * mapped there.
 */
export function map(
  memory: MemoryWriter,
  root: PhysicalAddress,
  mapping: Mapping,
  allocateTable: () => PhysicalAddress,
): void {
  const { iova, size, address, write } = mapping;
  if ((size !== PAGE_SIZE && size !== SUPERPAGE_SIZE) || iova % size !== 0 || address % size !== 0) {
    throw new KhoError('KHO_EINVAL', `${hex(iova)} -> ${hex(address)}: not aligned to a page of ${size} bytes`);
  }
  checkIova(iova);
  const leafLevel = size === SUPERPAGE_SIZE ? LEVEL_OF_SUPERPAGE : 1;
  let table = root;
  for (let level = LEVELS; level > leafLevel; level--) {
    const at = entryAddress(table, iova, level);
    const entry = memory.readAddress(at);
    if (isLeaf(entry, level)) throw taken(iova);
    if (entry !== 0) {
      table = target(entry);
      continue;
    }
    table = newTable(memory, allocateTable());
    memory.writeU64(at, table + READ + WRITE); // the leaf decides; every level must allow
  }
  const at = entryAddress(table, iova, leafLevel);
  if (memory.readAddress(at) !== 0) throw taken(iova);
  memory.writeU64(at, address + READ + (write ? WRITE : 0) + (leafLevel === LEVEL_OF_SUPERPAGE ? SUPERPAGE : 0));
}

/** Empties a page, so that it can be a root or a table. */
export function newTable(memory: MemoryWriter, table: PhysicalAddress): PhysicalAddress {
  memory.fill(table, PAGE_SIZE, 0);
  return table;
}

/** The physical address that a device reaches at `iova`, or undefined where nothing is mapped. */
export function translate(memory: MemoryReader, root: PhysicalAddress, iova: number): PhysicalAddress | undefined {
  checkIova(iova);
  let table = root;
  for (let level = LEVELS; level > 0; level--) {
    const entry = memory.readAddress(entryAddress(table, iova, level));
    if (entry === 0) return undefined;
    if (isLeaf(entry, level)) return after(target(entry), iova % coverage(level));
    table = target(entry);
  }
  return undefined;
}

/** What a walk comes by, a table always before what it leads to. */
export type Visit =
  | { readonly kind: 'table'; readonly address: PhysicalAddress; readonly level: number }
  | ({ readonly kind: 'mapping' } & Mapping);

/** Walks the whole table by physical addresses, in ascending order of I/O virtual addresses, beginning with the root. */
export function* walk(memory: MemoryReader, table: PhysicalAddress, level = LEVELS, base = 0): Generator<Visit, void> {
  yield { kind: 'table', address: table, level };
  for (let index = 0; index < ENTRIES; index++) {
    const entry = memory.readAddress(after(table, index * ENTRY_SIZE));
    if (entry === 0) continue;
    const iova = base + index * coverage(level);
    if (isLeaf(entry, level)) {
      const write = (entry & WRITE) !== 0;
      yield { kind: 'mapping', iova, size: coverage(level), address: target(entry), write };
    } else {
      yield* walk(memory, target(entry), level - 1, iova);
    }
  }
}

/** Bytes that one entry of a table of this level covers: 4 KiB, 2 MiB, 1 GiB, 512 GiB. */
export function coverage(level: number): number {
  return PAGE_SIZE * ENTRIES ** (level - 1);
}

function entryAddress(table: PhysicalAddress, iova: number, level: number): PhysicalAddress {
  return after(table, (Math.floor(iova / coverage(level)) % ENTRIES) * ENTRY_SIZE);
}

function isLeaf(entry: number, level: number): boolean {
  // Bitwise operators see the low 32 bits alone, which is where the flags are.
  return entry !== 0 && (level === 1 || (level === LEVEL_OF_SUPERPAGE && (entry & SUPERPAGE) !== 0));
}

function target(entry: number): PhysicalAddress {
  return (entry - (entry % PAGE_SIZE)) as PhysicalAddress;
}

function checkIova(iova: number): void {
  if (!Number.isInteger(iova) || iova < 0 || iova >= IOVA_END) {
    throw new KhoError('KHO_EINVAL', `${iova} is not an I/O virtual address (0 to 2^48)`);
  }
}

function taken(iova: number): KhoError {
  return new KhoError('KHO_EEXIST', `something is mapped at the I/O virtual address ${hex(iova)}`);
}
