import { columns } from '../report/index.js';
import { type ChaosRunReport, type ChaosSummary, summaryLine } from './chaos.js';
import { CHAOS_KINDS } from './chaos-plan.js';

/** From so many runs on, a kind of fault that never struck is worth a word: something keeps it from happening. */
const LARGE = 1000;

/**
 * What came of the runs, in lines: which faults struck, what failed and how to repeat it, and last the line of numbers.
 * `repeat` says the command that repeats a run.
 */
export function chaosLines(summary: ChaosSummary, repeat: (index: number) => string): string[] {
  const { kinds, runs, failed } = summary;
  const rows = CHAOS_KINDS.map((kind) => {
    const { struck = 0, handedOver = 0 } = kinds.get(kind) ?? {};
    return [kind, struck, struck - handedOver, handedOver].map(String);
  });
  const never = CHAOS_KINDS.filter((kind) => !kinds.has(kind));
  return [
    ...columns(
      [
        { heading: 'fault', align: 'left' },
        { heading: 'runs it struck', align: 'right' },
        { heading: 'rolled back', align: 'right' },
        { heading: 'handed over', align: 'right' },
      ],
      rows,
    ),
    '',
    ...failed.flatMap((report) => failureLines(report, repeat)),
    ...(runs >= LARGE && never.length > 0 ? [`warning: never struck: ${never.join(', ')}`, ''] : []),
    summaryLine(summary),
  ];
}

function failureLines({ index, plan, violations }: ChaosRunReport, repeat: (index: number) => string): string[] {
  return [
    `run ${index}: ${plan}`,
    ...violations.map((violation) => `  ${violation}`),
    `  repeat: ${repeat(index)}`,
    '',
  ];
}
