import { availableParallelism, cpus } from 'node:os';
import {
  type Calibration,
  Coordinator,
  Host,
  type ModeCosts,
  phaseDuration,
  type Timeline,
} from '../coordinator/index.js';
import { VERSION } from '../version.js';
import { MODES, type Mode, WorkerPool } from '../workers/index.js';
import type { CalibrationLoad } from './calibration-load.js';

const MODULE = { url: new URL('./calibration-driver.js', import.meta.url).href, origin: 'calibration' };
/** Handovers of each kind before any counts: until then the code is not compiled. */
const WARM_UP = 6;
const ROUNDS = 9;

/** What each kind of handover adds to the one that does next to nothing. */
const LOADS = {
  empty: { instances: 8, load: { nodes: 0, steps: 0 } },
  bytes: { instances: 8, load: { nodes: 400, steps: 0 } },
  shards: { instances: 300, load: { nodes: 0, steps: 0 } },
  work: { instances: 8, load: { nodes: 0, steps: 500_000 } },
} as const satisfies Record<string, { instances: number; load: CalibrationLoad }>;

type LoadName = keyof typeof LOADS;

/** The medians of one mode's handovers with one load, in microseconds. */
interface Measured {
  readonly serialize: number;
  readonly finalize: number;
  /** Bytes of FDT. */
  readonly bytes: number;
}

export interface CalibrateOptions {
  /** Default: the machine's available parallelism. */
  readonly workers?: number;
  readonly signal?: AbortSignal;
}

/**
 * Measures what the modes cost on this machine, by small real handovers: one with next to nothing in it, one with many
 * properties, one with many shards, one with work; the modes take turns. About three seconds on an idle machine. A busy
 * one gives figures of a busy machine.
 */
export async function calibrate({
  workers = availableParallelism(),
  signal,
}: CalibrateOptions = {}): Promise<Calibration> {
  const pool = new WorkerPool({ threads: workers });
  try {
    const measured = new Map<Mode, Map<LoadName, Measured>>(MODES.map((mode) => [mode, new Map()]));
    for (const name of Object.keys(LOADS) as LoadName[]) {
      for (const [mode, result] of await measure(name, pool, signal)) measured.get(mode)?.set(name, result);
    }
    const sequential = measured.get('sequential') as Map<LoadName, Measured>;
    const work = difference(sequential, 'work', ({ serialize }) => serialize);
    const costs = (mode: Mode): ModeCosts => costsOf(measured.get(mode) as Map<LoadName, Measured>, work);
    return {
      machine: machineName(),
      workers,
      date: new Date().toISOString(),
      modes: { sequential: { ...costs('sequential'), parallelism: 1 }, hash: costs('hash'), subfdt: costs('subfdt') },
    };
  } finally {
    await pool[Symbol.asyncDispose]();
  }
}

/** What a calibration holds for, besides the number of workers. */
export function machineName(): string {
  const [cpu] = cpus();
  return `${cpu?.model ?? process.arch}, ${availableParallelism()} CPUs, Node ${process.version}, khorus ${VERSION}`;
}

async function measure(
  name: LoadName,
  pool: WorkerPool,
  signal: AbortSignal | undefined,
): Promise<Map<Mode, Measured>> {
  const { instances, load } = LOADS[name];
  const host = new Host({
    arch: 'x86_64',
    memory: 256 * 2 ** 20,
    nodes: 1,
    cmdline: 'kho=on kho_scratch=8M,16M,8M',
    cpus: 1,
    release: 'calibration',
  });
  const coordinators = MODES.map((mode): [Mode, Coordinator] => {
    const coordinator = new Coordinator(host, {
      ...{ mode, workers: pool.threads, pool, seed: 1, profile: 'kho-v4' },
      lateWrites: 'off', // costs every mode the same
    });
    return [mode, coordinator.register({ module: MODULE, count: instances, options: load, after: [], priority: 0 })];
  });
  const timelines = new Map<Mode, Timeline[]>(MODES.map((mode) => [mode, []]));
  let bytes = 0;
  try {
    for (let round = 0; round < WARM_UP + ROUNDS; round++) {
      for (const [mode, coordinator] of coordinators) {
        const handover = await coordinator.handover(signal === undefined ? {} : { signal });
        if (mode === 'hash') bytes = handover.blob('calibration')?.length ?? 0;
        if (round >= WARM_UP) timelines.get(mode)?.push(handover.timeline);
        handover[Symbol.dispose]();
      }
    }
  } finally {
    await Promise.all(coordinators.map(([, coordinator]) => coordinator[Symbol.asyncDispose]()));
  }
  return new Map(
    [...timelines].map(([mode, all]) => {
      const median = (phase: 'serialize' | 'finalize'): number =>
        medianOf(all.map((timeline) => phaseDuration(timeline, phase))) * 1000;
      return [mode, { serialize: median('serialize'), finalize: median('finalize'), bytes }];
    }),
  );
}

/** `work`: how long the work takes on one thread. */
function costsOf(measured: ReadonlyMap<LoadName, Measured>, work: number): ModeCosts {
  const serialize = ({ serialize: time }: Measured): number => time;
  const finalize = ({ finalize: time }: Measured): number => time;
  const empty = measured.get('empty') as Measured;
  const shards = LOADS.shards.instances - LOADS.empty.instances;
  const bytes = difference(measured, 'bytes', (one) => one.bytes);
  const parallelism = Math.max(1, work / difference(measured, 'work', serialize));
  return {
    fixed: empty.serialize + empty.finalize,
    // What finalize does for a shard is on one thread: as much as that many threads would do meanwhile.
    perShard:
      ((difference(measured, 'shards', serialize) + difference(measured, 'shards', finalize)) * parallelism) / shards,
    perByteSerialize: (difference(measured, 'bytes', serialize) * parallelism) / bytes,
    perByteFinalize: difference(measured, 'bytes', finalize) / bytes,
    parallelism,
  };
}

/** What a load adds to the empty one; at least a little, so that noise makes nothing free or worse. */
function difference(measured: ReadonlyMap<LoadName, Measured>, name: LoadName, of: (one: Measured) => number): number {
  const more = of(measured.get(name) as Measured) - of(measured.get('empty') as Measured);
  return Math.max(more, 1);
}

function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? 0;
}
