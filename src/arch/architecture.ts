import type { ScratchEntry } from '../abi/index.js';
import type { KhoError } from '../errors.js';
import type { PhysicalAddress, PhysicalMemory } from '../memblock/index.js';

/** A range of the firmware's memory map. */
export interface FirmwareRange {
  readonly base: PhysicalAddress;
  readonly size: number;
  readonly usable: boolean;
}

/** A kexec segment: bytes, and the memory that is theirs. */
export interface KexecSegment {
  /** What it is: `kernel`, `initrd`, `boot_params`, … */
  readonly what: string;
  readonly address: PhysicalAddress;
  readonly bytes: Uint8Array;
  /** Bytes of memory, whole pages, at least those of `bytes`; what follows them has no content of its own. */
  readonly memorySize: number;
}

/** A file to be loaded. */
export interface LoadedFile {
  /** As it was named, for messages. */
  readonly file: string;
  readonly bytes: Uint8Array;
}

/** What the next kernel must be told, and the next kernel itself, if there is one. */
export interface KexecInput {
  readonly firmware: readonly FirmwareRange[];
  readonly commandLine: string;
  /** Physical address of the root FDT; or the room that it is to have, in bytes, in a segment of its own. */
  readonly root: PhysicalAddress | { readonly room: number };
  readonly scratch: readonly ScratchEntry[];
  /** Without it only the boot record is made, which is all that our own successor needs. */
  readonly kernel?: LoadedFile;
  readonly initrd?: LoadedFile;
}

/** A kexec that is loaded: everything that the jump needs, placed in scratch. */
export interface KexecImage {
  readonly segments: readonly KexecSegment[];
  /** The segment of {@link segments} by which a successor finds the handover. */
  readonly record: KexecSegment;
  /** The segment that tells a successor where scratch is. */
  readonly scratchArray: KexecSegment;
  /** Absent without a kernel. */
  readonly kernel?: KexecSegment;
  /** Absent unless room for an FDT was asked for. */
  readonly fdt?: KexecFdt;
  /** Absent without a kernel. */
  readonly start?: KexecStart;
}

/** A segment for an FDT that is made after the load: nothing is loaded there. */
export interface KexecFdt {
  readonly segment: KexecSegment;
  /** Lets the boot record give the FDT's own size. Until then, and in the series v5 for ever, it gives that of the segment. */
  setSize(size: number): void;
}

/** How a loaded kernel is started. */
export interface KexecStart {
  /** The kernel's own version text, or empty. */
  readonly version: string;
  /** Physical address of its entry point. */
  readonly entry: number;
  /** The boot ROM of an emulated machine, which takes a CPU from reset to the entry point. */
  readonly rom: Uint8Array;
}

/** What a successor finds at boot, before it trusts anything else. */
export interface BootRecord {
  readonly kind: string;
  /** Where the record itself lies. */
  readonly address: PhysicalAddress;
  readonly firmware: readonly FirmwareRange[];
  /** Empty if it cannot be read; then `damage` says why. */
  readonly commandLine: string;
  /** KHO_EIMAGE: what of the record cannot be read. */
  readonly damage?: KhoError;
  readonly root: PhysicalAddress;
  readonly rootSize: number;
  readonly scratchArray: PhysicalAddress;
  readonly scratchArraySize: number;
}

/** A place that a search found to be a boot record by its form. */
export interface FoundBootRecord {
  readonly record: BootRecord;
  /** Why it may be none after all: root FDT or scratch array do not look real. KHO_EIMAGE. */
  readonly doubt?: KhoError;
}

/** How one architecture lays out memory and passes a handover on. */
export interface Architecture {
  readonly name: string;
  /** The firmware's memory map of a machine with `memory` bytes of RAM. */
  firmwareMap(memory: number): FirmwareRange[];
  /**
   * Places boot record, kernel and initrd, all inside the scratch areas. KHO_EADDRNOTAVAIL if they do not fit, KHO_EINVAL
   * if the kernel is none, or the command line too long for it.
   */
  loadKexec(input: KexecInput): KexecImage;
  /** Finds the boot record in memory: the best of {@link bootRecords}. KHO_EIMAGE if there is none. */
  findBootRecord(memory: PhysicalMemory): BootRecord;
  /**
   * Every place in memory that is a boot record by its form, best guess first; searched for while it is asked for.
   * With `areas` only those are searched.
   */
  bootRecords(memory: PhysicalMemory, areas?: readonly ScratchEntry[]): Iterable<FoundBootRecord>;
  /**
   * The same in steps: undefined after each small piece of memory that was searched, when the caller may do other things
   * or give up. Tens of GiB of scratch take a minute, though nearly all of them be holes of the image.
   */
  searchBootRecords(memory: PhysicalMemory, areas?: readonly ScratchEntry[]): Iterable<FoundBootRecord | undefined>;
  /** Reads the boot record at an address, whatever it leads to. KHO_EIMAGE if there is none. */
  readBootRecord(memory: PhysicalMemory, address: PhysicalAddress): BootRecord;
}
