import { type Driver, KhoError, type PageRange, physicalAddress } from '../../driver.js';

/** Options of the drivers here; each has a default. */
export interface ScratchPadOptions {
  /** Shards of an instance; default 2. */
  readonly shards: number;
  /** Pages that prepare allocates, in the first shard; default 3. */
  readonly pages: number;
  /** Nodes that each shard writes; default 4. */
  readonly nodes: number;
  /** True if cancel forgets to give anything back: what the core must do then. */
  readonly forgetful: boolean;
}

export interface ScratchPadState {
  readonly words: readonly number[];
}

export interface ScratchPadPrepared {
  readonly range: PageRange;
}

/**
 * A driver of no device, for tests and for chaos: words that it writes to preserved pages and into nodes, some early. It
 * uses what drivers can use, and needs no library, so that a thread has loaded it in a millisecond.
 */
export function scratchPad(
  name: string,
  hosted: boolean,
): Driver<ScratchPadOptions, ScratchPadState, ScratchPadPrepared> {
  return {
    name,
    compatible: `${name}-v1`,
    hosted,
    options: { parse: parseOptions },
    shards: ({ shards, pages }) =>
      Array.from({ length: shards }, (_, shard) => ({ pages: shard === 0 ? pages + 1 : 1, maxBytes: 4096 })),
    create(ctx) {
      const random = ctx.random();
      return { words: Array.from({ length: ctx.options.nodes }, () => random.u32()) };
    },
    prepare(ctx) {
      const range = ctx.alloc(ctx.options.pages);
      ctx.preserve(range);
      ctx.memory.fill(range.address, 4096 * range.pages, 0x5a);
      ctx.node('early').u32('words', ctx.state.words.length);
      return { range };
    },
    freeze(ctx) {
      for (const [index, word] of ctx.state.words.entries()) {
        ctx.memory.writeU64(physicalAddress(ctx.prepared.range.address + index * 8), word);
      }
    },
    serialize(ctx, shard) {
      if (shard === 0) {
        const { address, pages } = ctx.prepared.range;
        ctx.root.u64('address', address).u32('pages', pages).u32('shards', ctx.options.shards);
      }
      const page = ctx.allocFolio(0);
      ctx.memory.fill(page.address, 4096, shard);
      ctx.preserve(page);
      const own = ctx.node(`shard${shard}`).u64('page', page.address);
      for (const [index, word] of ctx.state.words.entries()) own.node(`word${index}`).u32('value', word);
    },
    cancel(ctx) {
      if (ctx.prepared === undefined || ctx.options.forgetful) return;
      ctx.unpreserve(ctx.prepared.range);
      ctx.free(ctx.prepared.range);
    },
    restore(ctx) {
      const number = (property: string): number => ctx.node.property(property)?.u32('little') ?? 0;
      const range = {
        address: physicalAddress(Number(ctx.node.property('address')?.u64('little') ?? 0n)),
        pages: number('pages'),
      };
      const count = ctx.node.child('early')?.property('words')?.u32('little') ?? 0;
      const words = Array.from({ length: count }, (_, index) =>
        Number(ctx.memory.readU64(physicalAddress(range.address + index * 8))),
      );
      ctx.claim(range);
      for (let shard = 0; shard < number('shards'); shard++) {
        const node = ctx.node.child(`shard${shard}`);
        ctx.discard({ address: physicalAddress(Number(node?.property('page')?.u64('little') ?? 0n)), order: 0 });
        for (const [index, word] of words.entries()) {
          const value = node?.child(`word${index}`)?.property('value')?.u32('little');
          if (value !== word) throw new KhoError('KHO_EDIGEST', `word ${index} of shard ${shard} is ${value}`);
        }
      }
      return { words };
    },
    snapshot: ({ words }) => words,
    finish() {},
  };
}

function parseOptions(raw: unknown): ScratchPadOptions {
  const { shards = 2, pages = 3, nodes = 4, forgetful = false } = (raw ?? {}) as Partial<ScratchPadOptions>;
  return { shards, pages, nodes, forgetful };
}
