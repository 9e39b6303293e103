import type { Architecture, FirmwareRange } from '../arch/index.js';
import { KhoError } from '../errors.js';
import type {
  KernelParameters,
  Memblock,
  PageAllocator,
  ReservedMem,
  Scratch,
  SharedPhysicalMemory,
} from '../memblock/index.js';
import { type BootedMachine, coldBoot } from './cold-boot.js';
import type { Inheritance } from './inheritance.js';
import type { HostOptions } from './plan.js';

/**
 * The modelled machine under one kernel, booted up to the point where drivers run: memory in shared segments, memblock with
 * what the kernel took at boot, scratch and `reserve_mem` areas, and a page allocator for the rest.
 *
 * Made by `new Host(options)`, a cold boot; the next kernel's host comes of a finished handover (Handover.nextHost).
 *
 * Nothing preserved ever lies in scratch, because the page allocator does not have it. (In Linux scratch is CMA, which
 * lends its pages to movable allocations only.) Main thread only; workers attach to {@link Host.memory}.
 */
export class Host implements BootedMachine {
  readonly options: HostOptions;
  readonly arch: Architecture;
  readonly firmware: readonly FirmwareRange[];
  readonly parameters: KernelParameters;
  readonly memory: SharedPhysicalMemory;
  readonly memblock: Memblock;
  readonly reserveMem: readonly ReservedMem[];
  readonly scratch: Scratch;
  readonly pages: PageAllocator;
  /** KHO kexecs since the cold boot, as far as this kernel was told: profiles of the patch series do not tell it. */
  readonly kexecCount: number;
  /** The release of the kernel that handed over; empty if none did, or did not tell. */
  readonly previousRelease: string;
  /** What drivers have from the kernel before. */
  readonly inheritance: Inheritance;
  #over = false;

  /**
   * Boots a host. KHO_EINVAL for memory or a command line that cannot be (strict: what the kernel would silently
   * ignore is an error), KHO_EOPNOTSUPP where KHO is off, KHO_ENOMEM where memory is too small for its scratch.
   *
   * `machine` is for Handover.nextHost, whose kernel has booted already.
   */
  constructor(options: HostOptions, machine: BootedMachine = coldBoot(options)) {
    this.options = machine.options;
    this.arch = machine.arch;
    this.firmware = machine.firmware;
    this.parameters = machine.parameters;
    this.memory = machine.memory;
    this.memblock = machine.memblock;
    this.reserveMem = machine.reserveMem;
    this.scratch = machine.scratch;
    this.pages = machine.pages;
    this.kexecCount = machine.kexecCount;
    this.previousRelease = machine.previousRelease;
    this.inheritance = machine.inheritance;
  }

  /** Whether the next kernel runs in this memory: then nothing of this host may be used any more. */
  get isOver(): boolean {
    return this.#over;
  }

  /** KHO_EBUSY if the kernel of this host is gone. */
  checkRunning(): void {
    if (!this.#over) return;
    throw new KhoError('KHO_EBUSY', 'this host is over: the next kernel runs in its memory (Handover.nextHost)');
  }

  /** The kernel has jumped, and its successor has booted. For Handover.nextHost alone. */
  end(): void {
    this.#over = true;
  }
}
