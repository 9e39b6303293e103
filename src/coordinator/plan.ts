import type { ProfileName } from '../abi/index.js';
import type { DriverModule, Mode } from '../workers/index.js';
import type { HostMemoryMap } from './host-memory-map.js';
import type { KexecPlan } from './kexec-files.js';
import type { Calibration } from './mode-choice.js';
import type { PhaseTimes } from './phase-times.js';

/** The largest CONFIG_NR_CPUS of x86-64. */
export const CPUS_MAX = 8192;
/** Characters of a command line: COMMAND_LINE_SIZE of x86-64, less the NUL. */
export const CMDLINE_MAX = 2047;
/** Characters of a kernel's release: __NEW_UTS_LEN. */
export const RELEASE_MAX = 64;

/** The modelled machine. */
export interface HostOptions {
  readonly arch: 'x86_64';
  /** Bytes of RAM, a multiple of 2 MiB. */
  readonly memory: number;
  /** NUMA nodes, which share the memory evenly. */
  readonly nodes: number;
  /**
   * Bytes of the memory that belong to guests, a multiple of 2 MiB, default 0. They are tracked and handed over, but have
   * no bytes in this model. Spread over the nodes evenly, in whole GiB as far as that goes, at the top of each.
   */
  readonly guestMemory?: number | undefined;
  /** Where the memory lies, instead of what `memory` and `nodes` come to; they then only count. */
  readonly memoryMap?: HostMemoryMap;
  /** The kernel command line: `kho=`, `kho_scratch=`, `reserve_mem=` take effect, the rest is carried along. */
  readonly cmdline: string;
  /**
   * `strict`, the default: what the kernel would silently ignore is KHO_EINVAL. `kernel`, for a command line that a real
   * kernel has booted with: it is read as the kernel does.
   */
  readonly cmdlineRules?: 'strict' | 'kernel';
  /** CPUs; the model of boot-time allocations scales with them. */
  readonly cpus: number;
  /**
   * Bytes of the running kernel's image in memory, data and bss included: scratch is scaled by it. 32 MiB unless said, as
   * a distribution's has.
   */
  readonly kernelSize?: number | undefined;
  /** The kernel release that `kexec-metadata` names; at most 64 characters. */
  readonly release: string;
}

/** What happens when the blackout overruns its budget. */
export const OVERRUN_POLICIES = ['cancel', 'ignore'] as const;
export type OverrunPolicy = (typeof OVERRUN_POLICIES)[number];

/** The phases that can have a budget of their own. */
export const BUDGETED_PHASES = ['prepare', 'shutdown', 'freeze', 'serialize', 'finalize', 'jump'] as const;
export type BudgetedPhase = (typeof BUDGETED_PHASES)[number];

export interface Budget {
  /** Milliseconds from freeze (or shutdown, if that is the trigger) to the last driver restored. */
  readonly blackout?: number;
  /** Milliseconds for single phases. */
  readonly phases?: Partial<Record<BudgetedPhase, number>>;
  /**
   * `cancel`: rolls back as soon as a budget is overrun, or the blackout's cannot be met any more as far as earlier runs and
   * the progress of this one tell. `ignore`: says so, and goes on.
   */
  readonly onOverrun: OverrunPolicy;
}

/**
 * What begins the blackout. `activate`: the machines are paused, then all drivers freeze, then all serialize. `shutdown`:
 * the devices are shut down, and each driver freezes and serializes as soon as it is down.
 */
export const TRIGGERS = ['activate', 'shutdown'] as const;
export type Trigger = (typeof TRIGGERS)[number];

/**
 * What a driver's failing `shutdown` means. `cancel`: everything is rolled back. `proceed`: as in a kernel, whose shutdown
 * callbacks cannot fail: the driver freezes and serializes nevertheless, and the failure is told.
 */
export const SHUTDOWN_FAILURE_POLICIES = ['cancel', 'proceed'] as const;
export type ShutdownFailurePolicy = (typeof SHUTDOWN_FAILURE_POLICIES)[number];

/**
 * What is done about memory that changes after its driver was frozen. `cancel`: found at the jump, it rolls back, and found in
 * the successor, it is a failure. `report`: it is told, and the handover goes on. `off`: nobody looks, and nothing is
 * digested. docs/late-writes.md has what it costs.
 */
export const LATE_WRITE_POLICIES = ['cancel', 'report', 'off'] as const;
export type LateWritePolicy = (typeof LATE_WRITE_POLICIES)[number];

/** One entry of a scenario's `drivers`: instances of one driver. Entries of the same driver add up. */
export interface DriverRegistration {
  readonly module: DriverModule;
  readonly count: number;
  readonly options: unknown;
  /** Names of drivers whose prepare and freeze come first. */
  readonly after: readonly string[];
  /** Higher goes first where there is a choice. */
  readonly priority: number;
  /** Milliseconds that one callback of the driver may take in the blackout. */
  readonly budget?: number;
  /** True to freeze the driver before the blackout, in parallel with others that are. */
  readonly freezeEarly?: boolean;
  /** Where the entry stands (`host.yaml:12`), for messages. */
  readonly where?: string;
}

/** A run, fully spelled out: what a scenario file and the command line's options come to. */
export interface RunPlan {
  readonly host: HostOptions;
  readonly profile: ProfileName;
  /** `auto`: the one of the others that the calibration predicts to be the fastest. */
  readonly mode: Mode | 'auto';
  /** What mode `auto` decides by, for as many workers; see calibrate(). */
  readonly calibration?: Calibration;
  /** Profiles `series-v4` and `series-v5` alone: bytes of room for the one FDT; 10 MiB if absent. */
  readonly fdtMax?: number;
  /** Threads of the pool. */
  readonly workers: number;
  /** What is handed over depends on the scenario and this number alone. */
  readonly seed: number;
  readonly budget?: Budget;
  /** Default `activate`. */
  readonly trigger?: Trigger;
  /** Default `cancel`. */
  readonly onShutdownFailure?: ShutdownFailurePolicy;
  /** Default `cancel`. */
  readonly lateWrites?: LateWritePolicy;
  /** Milliseconds after which a callback, in any phase, has hung: its thread is ended, its driver has failed. Default 30,000. */
  readonly callbackLimit?: number;
  /** What earlier runs of the same drivers took, by which a budget that cannot be met is known before it is overrun. */
  readonly earlier?: readonly PhaseTimes[];
  /** A kernel to load in prepare; without it only the boot record is made. */
  readonly kexec?: KexecPlan;
  readonly drivers: readonly DriverRegistration[];
}
