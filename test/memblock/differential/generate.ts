import { PAGE_SIZE, PHYS_ADDR_MAX } from '#dist/memblock/address.js';
import { MAX_NUMNODES, MemblockFlags, NUMA_NO_NODE } from '#dist/memblock/region.js';
import { Random } from '#dist/workers/random.js';
import { type ArgumentKind, CALLS } from './calls.js';
import type { Operation, Sequence } from './peer.js';

const GIB = 2 ** 30;
/** Where the addresses of a sequence lie together: the first page, low memory, borders of 4 GiB, far up, and the very top. */
const ANCHORS = [0, 2 ** 20, 4 * GIB, 2 ** 46, PHYS_ADDR_MAX] as const;
const GRAINS = [1, 64, PAGE_SIZE, 16 * PAGE_SIZE, 2 ** 21] as const;
const { HOTPLUG, MIRROR, NOMAP, DRIVER_MANAGED, RSRV_NOINIT, RSRV_KERN, KHO_SCRATCH, RSRV_HUGETLB } = MemblockFlags;
const MEMORY_FLAGS = [0, 0, 0, HOTPLUG, NOMAP, DRIVER_MANAGED, MIRROR, KHO_SCRATCH, HOTPLUG | KHO_SCRATCH] as const;
const RESERVED_FLAGS = [0, 0, RSRV_KERN, RSRV_NOINIT, RSRV_KERN | RSRV_NOINIT, RSRV_HUGETLB] as const;
const SEARCH_FLAGS = [0, 0, 0, HOTPLUG, NOMAP, DRIVER_MANAGED, MIRROR, KHO_SCRATCH, NOMAP | KHO_SCRATCH] as const;
const NODES = [0, 0, 1, 2, 3, NUMA_NO_NODE, NUMA_NO_NODE, MAX_NUMNODES - 1, MAX_NUMNODES] as const;
const WEIGHTED = Object.entries(CALLS).flatMap(([call, { weight }]) => Array<string>(weight).fill(call));

/**
 * Random sequences, all from one seed. In each, addresses are multiples of a grain near an anchor, so that ranges overlap,
 * touch and repeat; sizes are a few grains, sometimes nothing, sometimes all there is.
 */
export class Generator {
  readonly #random: Random;

  constructor(seed: number) {
    this.#random = new Random(`memblock ${seed}`);
  }

  /** A sequence of at most `limit` operations. */
  sequence(limit: number): Sequence {
    const random = this.#random;
    const arena = new Arena(random);
    const operations: Operation[] = [];
    // Small arrays grow often; 128 is what a kernel has.
    const initialRegions = random.pick([2, 3, 4, 8, 16, 128]);
    if (!random.oneIn(8)) operations.push({ call: 'memblock_allow_resize', args: [] });
    for (let count = random.below(4); count > 0; count--) operations.push(arena.memory());
    const length = 20 + random.below(300);
    while (operations.length < length) {
      if (random.oneIn(150)) operations.push(...arena.row());
      else operations.push(arena.operation(WEIGHTED[random.below(WEIGHTED.length)]));
    }
    return { initialRegions, operations: operations.slice(0, limit) };
  }
}

/** The part of the address space in which a sequence happens. */
class Arena {
  readonly #random: Random;
  readonly #start: number;
  readonly #grain: number;
  readonly #grains: number;

  constructor(random: Random) {
    this.#random = random;
    this.#grain = random.pick(GRAINS);
    this.#grains = random.pick([16, 64, 64, 1024]);
    const bytes = this.#grain * this.#grains;
    const anchor = random.pick(ANCHORS);
    this.#start = Math.min(Math.max(0, anchor - (random.oneIn(2) ? bytes / 2 : 0)), PHYS_ADDR_MAX - bytes);
  }

  operation(call: string): Operation {
    return { call, args: CALLS[call].kinds.map((kind) => this.#argument(kind)) };
  }

  /** A large piece of memory, so that there is something to allocate. */
  memory(): Operation {
    const random = this.#random;
    const size = this.#grain * (1 + random.below(this.#grains));
    const base = random.oneIn(2) ? this.#base() : 16 * 2 ** 20;
    return {
      call: 'memblock_add_node',
      args: [base, random.oneIn(2) ? size : 2 ** 22, random.pick(NODES), random.pick(MEMORY_FLAGS)],
    };
  }

  /** Many small ranges in a row that do not touch: what fills an array. */
  row(): Operation[] {
    const random = this.#random;
    const call = random.pick(['memblock_reserve', 'memblock_reserve', 'memblock_add', 'memblock_reserve_kern']);
    const first = this.#start + this.#grain * random.below(4);
    const stride = this.#grain * (2 + random.below(3));
    const ranges = Array.from({ length: 8 + random.below(160) }, (_, index) => first + index * stride);
    const operations = ranges
      .filter((base) => base < PHYS_ADDR_MAX)
      .map((base) => ({ call, args: [base, this.#grain] }));
    return random.oneIn(2) ? operations : operations.reverse();
  }

  #argument(kind: ArgumentKind): number {
    const random = this.#random;
    switch (kind) {
      case 'base':
        return this.#base();
      case 'size':
        if (random.oneIn(20)) return random.pick([0, 1, PHYS_ADDR_MAX, PHYS_ADDR_MAX - 1]);
        return this.#grain * (random.oneIn(8) ? random.below(this.#grains) : random.below(12)) + this.#unevenness();
      case 'small size':
        if (random.oneIn(20)) return random.pick([0, 1, PHYS_ADDR_MAX, this.#grain * this.#grains]);
        return random.oneIn(3) ? 1 + random.below(PAGE_SIZE) : this.#grain * (1 + random.below(6)) + this.#unevenness();
      case 'align':
        if (random.oneIn(30)) return random.pick([0, 3, 100, 4097, 2 ** 40, 2 ** 52]);
        return random.pick([1, 8, 64, 64, PAGE_SIZE, this.#grain, 2 * this.#grain, 2 ** 21]);
      case 'trim':
        return random.pick([1, 64, PAGE_SIZE, PAGE_SIZE, this.#grain, 2 * this.#grain, 2 ** 21, 3 * PAGE_SIZE]);
      case 'end':
        if (random.oneIn(2)) return random.pick([0, 0, 1, PHYS_ADDR_MAX, PHYS_ADDR_MAX]);
        return this.#base();
      case 'limit':
        if (random.oneIn(5)) return random.pick([0, 1, PHYS_ADDR_MAX]);
        return this.#grain * random.below(2 * this.#grains) + this.#unevenness();
      case 'nid':
        return random.pick(NODES);
      case 'memory flags':
        return random.pick(MEMORY_FLAGS);
      case 'reserved flags':
        return random.pick(RESERVED_FLAGS);
      case 'search flags':
        return random.pick(SEARCH_FLAGS);
      case 'type':
      case 'switch':
        return random.below(2);
      case 'pfn':
        return Math.floor(this.#base() / PAGE_SIZE);
    }
  }

  #base(): number {
    const random = this.#random;
    if (random.oneIn(60)) return random.pick([0, 1, PAGE_SIZE, PHYS_ADDR_MAX - 1, PHYS_ADDR_MAX]);
    const base = this.#start + this.#grain * random.below(this.#grains + 1) + this.#unevenness();
    return Math.min(Math.max(0, base), PHYS_ADDR_MAX);
  }

  /** Mostly 0; now and then an address is not a multiple of the grain. */
  #unevenness(): number {
    return this.#random.oneIn(12) ? 1 + this.#random.below(this.#grain) : 0;
  }
}
