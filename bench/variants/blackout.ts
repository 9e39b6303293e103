/** A warm host with the six drivers: how long each handover takes from freeze to finalized, in milliseconds. */
import { constants, PerformanceObserver } from 'node:perf_hooks';
import { setImmediate } from 'node:timers/promises';
import { HandoverRunner, type ModePlan, phases } from '../handover-runner.js';
import type { Measured } from '../harness/comparison.js';
import { sixDrivers } from '../six-drivers.js';

export interface BlackoutParameters {
  readonly plan: ModePlan;
  /** Of all drivers together. */
  readonly instances: number;
  /** Handovers of one round. */
  readonly handovers: number;
}

const MEMORY = 2 * 2 ** 30;

export default function blackout({ plan, instances, handovers }: BlackoutParameters): Measured {
  const runner = new HandoverRunner(plan, sixDrivers(instances), MEMORY);
  const pauses = new GarbagePauses();
  return {
    async measure() {
      const times: number[] = [];
      for (let handover = 0; handover < handovers; handover++) {
        // The handover's clock begins when it is called.
        const epoch = performance.now();
        const { start, end } = await runner.handOver(({ timeline }) => phases(timeline, 'freeze', 'finalize'));
        times.push(end - start);
        await pauses.note(epoch + start, epoch + end);
      }
      return times;
    },
    notes: () => [...runner.choiceLines(), ...pauses.lines()],
  };
}

const KINDS: Readonly<Record<number, string>> = {
  [constants.NODE_PERFORMANCE_GC_MINOR]: 'minor',
  [constants.NODE_PERFORMANCE_GC_MAJOR]: 'major',
  [constants.NODE_PERFORMANCE_GC_INCREMENTAL]: 'incremental',
  [constants.NODE_PERFORMANCE_GC_WEAKCB]: 'weak callbacks',
};

/** A performance entry of type `gc`; times in milliseconds of performance.now(). */
interface GarbageCollection {
  readonly startTime: number;
  readonly duration: number;
  readonly detail: { readonly kind: number };
}

/** The main thread's garbage collections that fell into a blackout. */
class GarbagePauses {
  readonly #byKind = new Map<string, number[]>();
  #seen: GarbageCollection[] = [];
  #blackouts = 0;

  constructor() {
    const observer = new PerformanceObserver((list) => {
      this.#seen.push(...(list.getEntries() as unknown as GarbageCollection[]));
    });
    observer.observe({ entryTypes: ['gc'] });
  }

  async note(start: number, end: number): Promise<void> {
    await setImmediate(); // entries come with the next turn of the event loop
    this.#blackouts++;
    for (const { startTime, duration, detail } of this.#seen) {
      if (startTime + duration < start || startTime > end) continue;
      const kind = KINDS[detail.kind] ?? 'other';
      const durations = this.#byKind.get(kind);
      if (durations === undefined) this.#byKind.set(kind, [duration]);
      else durations.push(duration);
    }
    this.#seen = [];
  }

  lines(): string[] {
    const where = `garbage collections on the main thread in ${this.#blackouts} blackouts, warm-up included`;
    if (this.#byKind.size === 0) return [`no ${where}`];
    const kinds = [...this.#byKind].map(
      ([kind, durations]) => `${durations.length} ${kind}, the longest ${Math.max(...durations).toFixed(2)} ms`,
    );
    return [`${where}: ${kinds.join('; ')}`];
  }
}
