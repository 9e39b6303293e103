import type { RunRecord } from '../coordinator/run-record.js';
import { formatBytes } from './format.js';

/** What of a run tells how much of its state was early. */
export interface EarlyState {
  readonly drivers: readonly Pick<RunRecord['drivers'][number], 'earlyBytes' | 'stateBytes'>[];
}

/** Bytes of state that were written before the blackout and stayed, and bytes of all. */
export function earlyState({ drivers }: EarlyState): { bytes: number; of: number } {
  return {
    bytes: drivers.reduce((sum, { earlyBytes }) => sum + earlyBytes, 0),
    of: drivers.reduce((sum, { stateBytes }) => sum + stateBytes, 0),
  };
}

/** `Early: 1.2 MiB of 1.3 MiB of state (92.3 %) were written before the blackout`. */
export function earlyLine({ bytes, of }: { readonly bytes: number; readonly of: number }): string {
  const share = ((bytes / of) * 100).toFixed(1);
  return `Early: ${formatBytes(bytes)} of ${formatBytes(of)} of state (${share} %) were written before the blackout`;
}
