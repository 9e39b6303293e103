import type { Overrun } from '../coordinator/overruns.js';

/** Goal and result of a budget that was not kept, and what came of it, in one sentence. */
export function overrunSentence({ what, budget, took }: Overrun, refused: boolean): string {
  const goal = what === 'blackout' ? 'the blackout' : what;
  const outcome = refused
    ? 'that showed only after the last point where it could be rolled back, so it was handed over'
    : 'it was handed over nevertheless';
  return `${goal} had a budget of ${milliseconds(budget)} and took ${milliseconds(took)}; ${outcome}`;
}

function milliseconds(value: number): string {
  return `${Number(value.toPrecision(3))} ms`;
}
