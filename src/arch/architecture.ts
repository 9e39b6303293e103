import type { ScratchEntry } from '../abi/index.js';
import type { KhoError } from '../errors.js';
import type { PhysicalAddress, PhysicalMemory } from '../memblock/index.js';

/** A range of the firmware's memory map. */
export interface FirmwareRange {
  readonly base: PhysicalAddress;
  readonly size: number;
  readonly usable: boolean;
}

/** Bytes that the jump puts into place, as a kexec segment. */
export interface KexecSegment {
  readonly address: PhysicalAddress;
  readonly bytes: Uint8Array;
}

/** What the next kernel must be told. */
export interface BootRecordInput {
  readonly firmware: readonly FirmwareRange[];
  readonly commandLine: string;
  /** Physical address of the root FDT. */
  readonly root: PhysicalAddress;
  readonly scratch: readonly ScratchEntry[];
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
  /** Builds the boot record's segments, all inside the scratch areas; KHO_EADDRNOTAVAIL if they do not fit. */
  buildBootRecord(input: BootRecordInput): KexecSegment[];
  /** Finds the boot record in memory: the best of {@link bootRecords}. KHO_EIMAGE if there is none. */
  findBootRecord(memory: PhysicalMemory): BootRecord;
  /**
   * Every place in memory that is a boot record by its form, best guess first; searched for while it is asked for.
   * With `areas` only those are searched.
   */
  bootRecords(memory: PhysicalMemory, areas?: readonly ScratchEntry[]): Iterable<FoundBootRecord>;
  /** Reads the boot record at an address, whatever it leads to. KHO_EIMAGE if there is none. */
  readBootRecord(memory: PhysicalMemory, address: PhysicalAddress): BootRecord;
}
