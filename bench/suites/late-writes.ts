import type { Comparison } from '../harness/comparison.js';
import type { Suite } from '../harness/suite.js';
import type { FrozenPagesParameters } from '../variants/frozen-pages.js';
import type { GuardedBlackoutParameters } from '../variants/guarded-blackout.js';

const MIB = 2 ** 20;
const FROZEN_PAGES = new URL('../variants/frozen-pages.js', import.meta.url);
const GUARDED_BLACKOUT = new URL('../variants/guarded-blackout.js', import.meta.url);

/** What it costs to find memory that changes after its driver froze: a page, and a blackout that is all pages. */
export const lateWritesSuite: Suite = {
  async *comparisons({ quick, rounds }) {
    yield pages(quick ? 2 ** 12 : 2 ** 15, rounds(15));
    yield blackout(quick ? { guests: 2, size: 4 * MIB } : { guests: 8, size: 32 * MIB }, rounds(15));
  },
};

function pages(count: number, rounds: number): Comparison {
  return {
    title: `digests of ${count} pages, one for each 64-byte line`,
    unit: 'ns/page',
    reference: 'digest, 1 thread',
    variants: [1, 2].flatMap((threads) =>
      (['digest', 'compare'] as const).map((action) => {
        const parameters: FrozenPagesParameters = { action, threads, pages: count };
        return { name: `${action}, ${threads} thread${threads === 1 ? '' : 's'}`, module: FROZEN_PAGES, parameters };
      }),
    ),
    rounds,
  };
}

function blackout({ guests, size }: { guests: number; size: number }, rounds: number): Comparison {
  return {
    title: `${guests} guests of ${size / MIB} MiB in memfds, freeze to jump`,
    unit: 'ms',
    reference: 'off, 1 worker',
    variants: [1, 2].flatMap((workers) =>
      (['off', 'cancel'] as const).map((lateWrites) => {
        const parameters: GuardedBlackoutParameters = { plan: { mode: 'hash', workers, lateWrites }, guests, size };
        return {
          name: `${lateWrites}, ${workers} worker${workers === 1 ? '' : 's'}`,
          module: GUARDED_BLACKOUT,
          parameters,
        };
      }),
    ),
    rounds,
    warmup: 3,
  };
}
