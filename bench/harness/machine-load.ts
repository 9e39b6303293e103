import { readFileSync } from 'node:fs';

/** What the machine and this process had done up to a moment. Differences of two readings mean something, one alone does not. */
export interface LoadReading {
  /** A clock, in milliseconds. */
  readonly wall: number;
  /** CPU time of this process and of those of the variants, all their threads, in milliseconds. */
  readonly own: number;
  /** Time that the CPUs were idle or waited for a disk, all together, in milliseconds; undefined without /proc/stat. */
  readonly idle: number | undefined;
  /** How many CPUs `idle` is the sum of. */
  readonly cpus: number;
  /** `some total` of /proc/pressure/cpu in milliseconds: how long at least one task waited for a CPU. */
  readonly pressure: number | undefined;
}

/** What `/proc/pressure/cpu` says of tasks that wait for a CPU. */
export interface CpuPressure {
  /** Share of the last 10 seconds in which at least one task waited, in percent. */
  readonly avg10: number;
  /** Milliseconds since boot in which at least one task waited. */
  readonly total: number;
}

/** /proc/stat counts in ticks of USER_HZ, which is 100 a second for every architecture that Node runs on. */
export const TICK_MS = 10;

/** Reads how busy this machine is. On a system without /proc the readings say that nothing is known. */
export class MachineLoad {
  readonly #proc: string;

  /** `proc` is where procfs is mounted. */
  constructor(proc = '/proc') {
    this.#proc = proc;
  }

  /** `variants` is the CPU time of their processes so far. */
  read(variants: number): LoadReading {
    const { user, system } = process.cpuUsage();
    const own = (user + system) / 1000 + variants;
    return { wall: performance.now(), own, ...this.#idle(), pressure: this.pressure()?.total };
  }

  pressure(): CpuPressure | undefined {
    const line = this.#text('pressure/cpu')?.match(/^some avg10=([\d.]+) .*total=(\d+)/m);
    return line ? { avg10: Number(line[1]), total: Number(line[2]) / 1000 } : undefined;
  }

  #idle(): { idle: number | undefined; cpus: number } {
    const stat = this.#text('stat');
    // user nice system idle iowait …
    const [, , , idle, iowait] =
      stat
        ?.match(/^cpu +(.*)$/m)?.[1]
        ?.split(' ')
        .map(Number) ?? [];
    const cpus = stat?.match(/^cpu\d/gm)?.length ?? 0;
    if (idle === undefined || iowait === undefined || cpus === 0) return { idle: undefined, cpus: 0 };
    return { idle: (idle + iowait) * TICK_MS, cpus };
  }

  #text(file: string): string | undefined {
    try {
      return readFileSync(`${this.#proc}/${file}`, 'latin1');
    } catch {
      return undefined;
    }
  }
}
