import { KhoError } from '#dist/errors.js';
import { Memblock } from '#dist/memblock/memblock.js';
import { CALLS } from './calls.js';
import { digestOf } from './digest.js';

/** One call, by the kernel's name. */
export interface Operation {
  readonly call: string;
  readonly args: readonly number[];
}

/** What a memblock is asked from its boot on. */
export interface Sequence {
  /** Regions that each array has room for at first. */
  readonly initialRegions: number;
  readonly operations: readonly Operation[];
}

/** Something that carries out sequences: the kernel's memblock, or ours. */
export interface Peer {
  /**
   * A line for each operation: what was returned, whether it warned, the digest of both arrays. After a panic (`panic`, digest)
   * or a BUG (`bug`), the next operation finds a memblock as after boot, with arrays of 128 regions.
   */
  run(sequences: readonly Sequence[]): Promise<string[][]>;
}

/** khorus' own. A factory of other memblocks makes a peer that is wrong on purpose. */
export class ModelPeer implements Peer {
  readonly #make: (initialRegions: number) => Memblock;

  constructor(make = (initialRegions: number): Memblock => new Memblock(undefined, { initialRegions })) {
    this.#make = make;
  }

  async run(sequences: readonly Sequence[]): Promise<string[][]> {
    return sequences.map(({ initialRegions, operations }) => {
      let warned = 0;
      const boot = (regions: number): Memblock => {
        const memblock = this.#make(regions);
        memblock.onWarning = () => {
          warned = 1;
        };
        return memblock;
      };
      let memblock = boot(initialRegions);
      return operations.map(({ call, args }) => {
        warned = 0;
        try {
          const returned = CALLS[call].run(memblock, args);
          return `${returned} ${warned} ${digestOf(memblock)}`;
        } catch (error) {
          const ending = endingOf(error);
          const digest = digestOf(memblock);
          memblock = boot(128);
          return ending === 'panic' ? `panic ${digest}` : ending;
        }
      });
    });
  }
}

/** How the kernel would have ended. */
function endingOf(error: unknown): 'panic' | 'bug' {
  if (!(error instanceof KhoError && error.code === 'KHO_ENOMEM')) throw error;
  return /cannot resize|Failed to allocate/.test(error.message) ? 'panic' : 'bug';
}
