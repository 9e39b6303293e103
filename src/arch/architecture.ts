import type { ScratchEntry } from '../abi/index.js';
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
  readonly commandLine: string;
  readonly root: PhysicalAddress;
  readonly rootSize: number;
  readonly scratchArray: PhysicalAddress;
  readonly scratchArraySize: number;
}

/** How one architecture lays out memory and passes a handover on. */
export interface Architecture {
  readonly name: string;
  /** The firmware's memory map of a machine with `memory` bytes of RAM. */
  firmwareMap(memory: number): FirmwareRange[];
  /** Builds the boot record's segments, all inside the scratch areas; KHO_EADDRNOTAVAIL if they do not fit. */
  buildBootRecord(input: BootRecordInput): KexecSegment[];
  /** Finds the boot record in memory. KHO_EIMAGE if there is none. */
  findBootRecord(memory: PhysicalMemory): BootRecord;
}
