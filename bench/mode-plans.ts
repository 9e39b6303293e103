import { calibrate } from 'khorus';
import { MODES } from '#dist/cli/scenario-schema.js';
import type { ModePlan } from './handover-runner.js';

/** Every mode with this many workers. For mode `auto` the machine is calibrated now: the user's calibration may be old. */
export async function modePlans(workers: number): Promise<ModePlan[]> {
  const calibration = await calibrate({ workers });
  return MODES.map((mode) => ({ mode, workers, ...(mode === 'auto' ? { calibration } : {}) }));
}
