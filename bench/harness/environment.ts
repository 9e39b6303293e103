import { availableParallelism, cpus, loadavg, totalmem } from 'node:os';
import { VERSION } from 'khorus';
import type { CpuPressure, MachineLoad } from './machine-load.js';

/** Where and when it was measured. */
export interface Environment {
  readonly date: string;
  readonly khorus: string;
  readonly node: string;
  readonly v8: string;
  readonly platform: string;
  readonly cores: number;
  readonly cpuModel: string;
  readonly memory: number;
  readonly before: MachineState;
  readonly after: MachineState;
}

export interface MachineState {
  /** Tasks that ran or wanted to, on average over the last minute. */
  readonly loadAverage: number;
  /** `null` where there is no /proc/pressure/cpu. */
  readonly pressure: CpuPressure | null;
}

export function machineState(load: MachineLoad): MachineState {
  return { loadAverage: loadavg()[0] ?? 0, pressure: load.pressure() ?? null };
}

export function environment(before: MachineState, after: MachineState): Environment {
  return {
    date: new Date().toISOString(),
    khorus: VERSION,
    node: process.version,
    v8: process.versions.v8,
    platform: `${process.platform} ${process.arch}`,
    cores: availableParallelism(),
    cpuModel: cpus()[0]?.model ?? 'unknown',
    memory: totalmem(),
    before,
    after,
  };
}

export function environmentLines({ before, after, ...where }: Environment): string[] {
  const pressure = (state: MachineState): string =>
    state.pressure === null ? 'not measured' : `${state.pressure.avg10.toFixed(1)} %`;
  return [
    `khorus ${where.khorus}, Node ${where.node}, V8 ${where.v8}, ${where.platform}`,
    `${where.cores} cores, ${where.cpuModel}, ${(where.memory / 2 ** 30).toFixed(1)} GiB, ${where.date}`,
    `load average ${before.loadAverage.toFixed(2)} before, ${after.loadAverage.toFixed(2)} after; CPU pressure (some, 10 s) ${pressure(before)} before, ${pressure(after)} after`,
  ];
}
