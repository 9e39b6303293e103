/**
 * What a kernel takes for itself before it reserves scratch. Scratch is scaled by the sum, so the sum is what must be right.
 * Compared with Linux 7.2.13 in QEMU (test/kernel/scratch.test.ts): within 10 % of the areas of 512 MiB, 1 and 2 GiB.
 *
 * Exact rules, given the constants: image and initrd, struct pages, their bookkeeping, hash tables, bounce buffers,
 * page-table counts.
 * Approximations: the constants marked so below (they depend on the kernel's configuration), the addresses (a real kernel
 * frees the unused ends of per-cpu chunks and so leaves holes; here each thing is one piece), and SMALL_ALLOCATIONS_SIZE
 * for everything too small to name. At 512 MiB and above, image, struct pages and hash tables are over nine tenths.
 *
 * Not here, because they come later or from the page allocator: futex, mount, TCP and pid tables; page_ext; kfence.
 */
import { alignDown, alignUp, PAGE_SIZE, type PhysicalAddress, physicalAddress } from './address.js';
import { hashTableSize } from './hash-table-size.js';
import { ARCH_LOW_ADDRESS_LIMIT, MEMBLOCK_ALLOC_ACCESSIBLE, type Memblock, SMP_CACHE_BYTES } from './memblock.js';
import { outOfMemory } from './out-of-memory.js';
import { isValidNode, NUMA_NO_NODE, regionEnd } from './region.js';
import { nodesWithMemory } from './scratch.js';

/** sizeof(struct page), without memory-tag or KMSAN options. */
export const STRUCT_PAGE_SIZE = 64;
/** Memory comes in sections of 128 MiB (x86-64 and arm64 with 4 KiB pages); a section begun has all its struct pages. */
export const SECTION_SIZE = 2 ** 27;
/** Physical address bits of the section table: 46 with four page-table levels; with five, 52, and 1 MiB instead of 16 KiB. */
export const MAX_PHYSMEM_BITS = 46;
/** sizeof(struct mem_section) without page_ext. One page of them is a root. */
export const MEM_SECTION_SIZE = 16;
/** sizeof(struct mem_section_usage): 24 bytes, and 4 bits for each of 64 page blocks. */
export const SECTION_USAGE_SIZE = 56;
/** sizeof(pg_data_t), rounded up. Approximation: 172 KiB with a distribution's 1024 nodes, a few KiB with one. */
export const NODE_DATA_SIZE = 0x2b000;
/** One CPU's static, reserved and dynamic per-cpu data. Approximation: it grows with the configuration. */
export const PERCPU_UNIT_SIZE = 220 * 1024;
/** The bounce buffers for 32-bit devices, where there is memory above 4 GiB, and 24 bytes for each 2 KiB of them. */
export const SWIOTLB_SIZE = 64 * 2 ** 20;
const SWIOTLB_SLOTS_SHARE = 24 / 2048;
/** Where there is no room, swiotlb_init() halves its wish down to this; after that the kernel goes without. */
const SWIOTLB_MINIMUM = 2 ** 20;
/** Command-line copies, resource structs, real-mode trampoline, ACPI tables … Approximation. */
export const SMALL_ALLOCATIONS_SIZE = 128 * 1024;
/** Dentry and inode caches: a bucket of 8 bytes for each 8 and 16 KiB. */
export const HASH_BUCKET_SIZE = 8;
export const DENTRY_HASH_SCALE = 13;
export const INODE_HASH_SCALE = 14;

const NO_MINIMUM = physicalAddress(0);
const POINTER_SIZE = 8;
const PMD_SIZE = 2 ** 21;
const PUD_SIZE = 2 ** 30;
const P4D_SIZE = 2 ** 39;
/** Allocations of the mm core prefer memory above what ISA DMA reaches. */
const MAX_DMA_ADDRESS = physicalAddress(2 ** 24);
const SECTIONS_PER_ROOT = PAGE_SIZE / MEM_SECTION_SIZE;
/** The struct pages of one section: 2 MiB, one entry of a page-middle directory. */
const SECTION_MEMMAP_SIZE = alignUp((SECTION_SIZE / PAGE_SIZE) * STRUCT_PAGE_SIZE, PMD_SIZE);

/** A range that a loader put something in. */
export interface BootRange {
  address: PhysicalAddress;
  size: number;
}

/** What decides how much a kernel allocates, besides its memory. */
export interface BootMachine {
  /** Possible CPUs. */
  cpus: number;
  /**
   * The kernel image from _text to __end_of_kernel_reserve: data and bss included. Like the initrd it is reserved as the
   * kernel's own (x86-64 of 7.2: memblock_reserve_kern() in early_reserve_memory()), so that scratch is scaled by it too.
   */
  kernel?: BootRange;
  initrd?: BootRange;
  /** Other plain reservations, such as the first MiB of x86-64. */
  reserved?: readonly BootRange[];
}

/** One allocation of {@link reserveBootAllocations}. */
export interface BootAllocation {
  /** What it is for, as a kernel engineer calls it. */
  name: string;
  address: PhysicalAddress;
  size: number;
  /** The node it was asked for, or NUMA_NO_NODE. */
  nid: number;
}

/**
 * Makes the reservations of a booting kernel up to the point where it would reserve scratch, in their order, and
 * returns the allocations among them. A function of memory map and machine alone.
 *
 * Without any node in the memory map, all memory becomes node 0, as in a NUMA kernel on a machine without NUMA.
 * KHO_ENOMEM where the machine has no room for one.
 */
export function reserveBootAllocations(memblock: Memblock, machine: BootMachine): BootAllocation[] {
  for (const { address, size } of machine.reserved ?? []) memblock.reserve(address, size);
  for (const range of [machine.kernel, machine.initrd]) {
    if (range !== undefined) memblock.reserveKern(range.address, range.size);
  }
  const boot = new BootAllocator(memblock);
  boot.allocate('direct-map page tables', directMapTables(memblock) * PAGE_SIZE, PAGE_SIZE);
  assignNodes(memblock);

  const nodes = nodesWithMemory(memblock);
  for (const nid of nodes) boot.allocate(`node data ${nid}`, NODE_DATA_SIZE, SMP_CACHE_BYTES, { nid });
  allocateSections(memblock, boot, nodes);

  // With several nodes these tables are spread over all of them, later, by the page allocator (hashdist).
  if (nodes.length === 1) {
    const pages = freePages(memblock);
    const tables = { 'dentry hash table': DENTRY_HASH_SCALE, 'inode hash table': INODE_HASH_SCALE };
    for (const [name, scale] of Object.entries(tables)) {
      boot.allocate(name, hashTableSize(pages, HASH_BUCKET_SIZE, scale), SMP_CACHE_BYTES);
    }
  }
  for (const [index, nid] of nodes.entries()) {
    const cpus = Math.floor((machine.cpus + index) / nodes.length);
    if (cpus > 0) {
      boot.allocate(`per-cpu area ${nid}`, cpus * PERCPU_UNIT_SIZE, PMD_SIZE, { nid, minimum: MAX_DMA_ADDRESS });
    }
  }
  boot.allocate('small allocations', SMALL_ALLOCATIONS_SIZE, SMP_CACHE_BYTES);
  if (memblock.endOfDram() > ARCH_LOW_ADDRESS_LIMIT + 1) {
    const size = boot.allocateSwiotlb();
    if (size > 0) boot.allocate('swiotlb slots', size * SWIOTLB_SLOTS_SHARE, PAGE_SIZE);
  }
  return boot.allocations;
}

interface Place {
  nid?: number;
  minimum?: PhysicalAddress;
  maximum?: PhysicalAddress;
}

class BootAllocator {
  readonly allocations: BootAllocation[] = [];
  readonly #memblock: Memblock;

  constructor(memblock: Memblock) {
    this.#memblock = memblock;
  }

  allocate(name: string, size: number, align: number, { nid = NUMA_NO_NODE, minimum, maximum }: Place = {}): void {
    if (size === 0) return;
    const address = this.#memblock.allocTryNid(size, align, minimum, maximum ?? MEMBLOCK_ALLOC_ACCESSIBLE, nid);
    if (address === undefined) {
      throw outOfMemory(this.#memblock, `the kernel's ${name}`, size, maximum === undefined ? {} : { end: maximum });
    }
    this.allocations.push({ name, address, size, nid });
  }

  /**
   * The struct pages of `sections` sections: where there is no such room in one piece, section by section, as the kernel
   * does it always (vmemmap_alloc_block() of PMD_SIZE). A kernel in scratch needs that: no area of it need be so large.
   */
  allocateStructPages(sections: number, place: Place & { readonly nid: number }): void {
    const name = `struct pages ${place.nid}`;
    const whole = sections * SECTION_MEMMAP_SIZE;
    const { nid, minimum } = place;
    if (this.#memblock.findInRange(whole, SECTION_MEMMAP_SIZE, minimum ?? NO_MINIMUM, MEMBLOCK_ALLOC_ACCESSIBLE, nid)) {
      this.allocate(name, whole, SECTION_MEMMAP_SIZE, place);
    } else {
      for (let section = 0; section < sections; section++) {
        this.allocate(name, SECTION_MEMMAP_SIZE, SECTION_MEMMAP_SIZE, place);
      }
    }
  }

  /** The bounce buffers, as large as there is room for (7.2.13 in small scratch took 32 MiB); 0 if there is none. */
  allocateSwiotlb(): number {
    for (let size = SWIOTLB_SIZE; size >= SWIOTLB_MINIMUM; size /= 2) {
      const address = this.#memblock.allocTryNid(size, PAGE_SIZE, undefined, ARCH_LOW_ADDRESS_LIMIT, NUMA_NO_NODE);
      if (address === undefined) continue;
      this.allocations.push({ name: 'swiotlb', address, size, nid: NUMA_NO_NODE });
      return size;
    }
    return 0;
  }
}

/**
 * Page-table pages of the direct map, with 1 GiB pages: a PMD page for each GiB that memory covers in part, a PTE page
 * for each 2 MiB covered in part, a PUD page for each 512 GiB. Partly covered blocks are at the ends of regions.
 */
function directMapTables(memblock: Memblock): number {
  const tables = new Set<string>();
  for (const region of memblock.memory.regions) {
    const end = regionEnd(region);
    for (const blockSize of [PMD_SIZE, PUD_SIZE]) {
      for (const edge of [region.base, end]) {
        if (edge % blockSize !== 0) tables.add(`${blockSize}:${alignDown(edge, blockSize)}`);
      }
    }
    for (let block = alignDown(region.base, P4D_SIZE); block < end; block += P4D_SIZE) {
      tables.add(`${P4D_SIZE}:${block}`);
    }
  }
  return tables.size;
}

/** NUMA set-up: memory gets its nodes, and what is reserved by then gets the node of its memory. */
function assignNodes(memblock: Memblock): void {
  if (nodesWithMemory(memblock).length === 0) {
    memblock.setNode(physicalAddress(0), Number.POSITIVE_INFINITY, memblock.memory, 0);
  }
  for (const region of memblock.memory.regions) {
    if (isValidNode(region.nid)) memblock.setNode(region.base, region.size, memblock.reserved, region.nid);
  }
}

/** The section table, and for each node its sections' bookkeeping, struct pages, and the page tables that map those. */
function allocateSections(memblock: Memblock, boot: BootAllocator, nodes: readonly number[]): void {
  const roots = 2 ** MAX_PHYSMEM_BITS / SECTION_SIZE / SECTIONS_PER_ROOT;
  boot.allocate('section roots', roots * POINTER_SIZE, SMP_CACHE_BYTES);
  const sections = sectionNodes(memblock);
  const seenRoots = new Set<number>();
  for (const [section, nid] of sections) {
    const root = Math.floor(section / SECTIONS_PER_ROOT);
    if (!seenRoots.has(root)) boot.allocate(`sections ${root}`, PAGE_SIZE, SMP_CACHE_BYTES, { nid });
    seenRoots.add(root);
  }
  const seenTables = new Set<string>();
  for (const nid of nodes) {
    const own = [...sections].filter(([, sectionNid]) => sectionNid === nid).map(([section]) => section);
    if (own.length === 0) continue;
    const goal = { nid, minimum: MAX_DMA_ADDRESS };
    boot.allocate(`section usage ${nid}`, own.length * SECTION_USAGE_SIZE, SMP_CACHE_BYTES, { nid });
    boot.allocateStructPages(own.length, goal);
    // Struct pages of consecutive sections are consecutive in virtual memory, where nothing is mapped before: 1 GiB of
    // them is one PMD page, 512 GiB are one PUD page, made for the node that comes first.
    const tables = [PUD_SIZE, P4D_SIZE].flatMap((reach) =>
      own.map((section) => `${reach}:${Math.floor((section * SECTION_MEMMAP_SIZE) / reach)}`),
    );
    const missing = new Set(tables.filter((table) => !seenTables.has(table)));
    for (const table of missing) seenTables.add(table);
    boot.allocate(`struct-page tables ${nid}`, missing.size * PAGE_SIZE, PAGE_SIZE, goal);
  }
}

/** Each section with memory in it, ascending, and its node: that of the lowest memory in it. */
function sectionNodes(memblock: Memblock): Map<number, number> {
  const sections = new Map<number, number>();
  for (const region of memblock.memory.regions) {
    const last = Math.floor((regionEnd(region) - 1) / SECTION_SIZE);
    for (let section = Math.floor(region.base / SECTION_SIZE); section <= last; section++) {
      if (!sections.has(section)) sections.set(section, region.nid);
    }
  }
  return sections;
}

/** Whole free pages, as calc_nr_kernel_pages() counts them. */
function freePages(memblock: Memblock): number {
  let pages = 0;
  for (const { start, end } of memblock.freeRanges()) {
    pages += Math.max(0, Math.floor(end / PAGE_SIZE) - Math.ceil(start / PAGE_SIZE));
  }
  return pages;
}
