/** Guests' memory handed over, with and without looking for late writes: freeze to the jump, in milliseconds. */
import { BUILTIN_DRIVERS } from '#dist/drivers/builtin.js';
import { HandoverRunner, type ModePlan, phases } from '../handover-runner.js';
import type { Measured } from '../harness/comparison.js';

export interface GuardedBlackoutParameters {
  readonly plan: ModePlan;
  readonly guests: number;
  /** Bytes of each. */
  readonly size: number;
}

const MEMORY = 2 * 2 ** 30;

export default function guardedBlackout({ plan, guests, size }: GuardedBlackoutParameters): Measured {
  const module = { url: BUILTIN_DRIVERS.get('memfd') ?? '', origin: 'memfd' };
  const runner = new HandoverRunner(plan, [{ module, count: guests, options: { size } }], MEMORY);
  return {
    async measure() {
      const { start, end } = await runner.handOver(({ timeline }) => phases(timeline, 'freeze', 'jump'));
      return end - start;
    },
  };
}
