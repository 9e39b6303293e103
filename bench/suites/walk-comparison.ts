import type { Comparison } from '../harness/comparison.js';
import { type Goal, medianOf } from '../harness/goals.js';
import type { SuiteMeasurements } from '../harness/suite.js';
import type { WalkReserveParameters } from '../variants/walk-reserve.js';

const WALK_RESERVE = new URL('../variants/walk-reserve.js', import.meta.url);
const TITLE = "the successor's walk";
const DENSE = 'walk and reserve, side by side';

/** Pages side by side: what costs is a run. */
const RUNS = [64, 8];
/** Smaller pieces are measured, not judged: then a million regions of memblock are what costs, not the walk. */
const JUDGED_RUN = 64;

const fragmented = (run: number): string => `walk and reserve, runs of ${run}`;

export const PUBLISHED_NOTE =
  'what is published of the walk of 12.6 million pages in Linux is at least 159 ns a page: on another machine, and struct ' +
  'pages may be initialized in the same pass';

/** From the tracker's root to memory reserved in memblock: 48 GiB page by page, side by side and in runs at random places. */
export function walkAndReserve(quick: boolean, rounds: number): Comparison {
  const pages = quick ? 2 ** 18 : 12 * 2 ** 20;
  const variant = (name: string, run: number, until: WalkReserveParameters['until'] = 'reserved') => {
    const parameters: WalkReserveParameters = { pages, run, until };
    return { name, module: WALK_RESERVE, parameters };
  };
  return {
    title: `${TITLE}: ${pages} pages of order 0`,
    unit: 'ns/page',
    reference: DENSE,
    variants: [
      variant(DENSE, pages),
      ...RUNS.map((run) => variant(fragmented(run), run)),
      ...RUNS.map((run) => variant(`walk and index, runs of ${run}`, run, 'index')),
      variant('walk and index, single pages', 1, 'index'),
    ],
    rounds,
    warmup: 2,
  };
}

export function walkGoals({ comparisons }: SuiteMeasurements): Goal[] {
  const result = comparisons.find(({ title }) => title.startsWith(TITLE));
  return [DENSE, fragmented(JUDGED_RUN)].map((name) => ({
    ...{ name, unit: 'ns/page', better: 'less', pass: 40, aim: 15 },
    ...medianOf(result, name),
  }));
}
