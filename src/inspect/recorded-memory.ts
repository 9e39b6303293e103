import {
  alignDown,
  type ByteOrder,
  type CoreRange,
  type MemoryRange,
  PAGE_SIZE,
  type PhysicalAddress,
  type PhysicalMemory,
  physicalAddress,
} from '../memblock/index.js';

/**
 * Memory that remembers which of its pages were read: what a reader of a handover needs is what it has read. Reads that
 * fail are not remembered.
 */
export class RecordedMemory implements PhysicalMemory {
  readonly #memory: PhysicalMemory;
  readonly #pages = new Set<number>();

  constructor(memory: PhysicalMemory) {
    this.#memory = memory;
  }

  get ranges(): readonly MemoryRange[] {
    return this.#memory.ranges;
  }

  /** Every page of which a byte was read, ascending. */
  pages(): CoreRange[] {
    return [...this.#pages].sort((a, b) => a - b).map((page) => ({ base: physicalAddress(page), size: PAGE_SIZE }));
  }

  read(address: PhysicalAddress, length: number): Uint8Array {
    const bytes = this.#memory.read(address, length);
    this.#note(address, length);
    return bytes;
  }

  readInto(address: PhysicalAddress, target: Uint8Array): void {
    this.#memory.readInto(address, target);
    this.#note(address, target.length);
  }

  view(address: PhysicalAddress, length: number): Uint8Array {
    const bytes = this.#memory.view(address, length);
    this.#note(address, length);
    return bytes;
  }

  readU32(address: PhysicalAddress, order?: ByteOrder): number {
    const value = this.#memory.readU32(address, order);
    this.#note(address, 4);
    return value;
  }

  readU64(address: PhysicalAddress, order?: ByteOrder): bigint {
    const value = this.#memory.readU64(address, order);
    this.#note(address, 8);
    return value;
  }

  readU64Number(address: PhysicalAddress, order?: ByteOrder): number {
    const value = this.#memory.readU64Number(address, order);
    this.#note(address, 8);
    return value;
  }

  write(address: PhysicalAddress, bytes: Uint8Array): void {
    this.#memory.write(address, bytes);
  }

  fill(address: PhysicalAddress, length: number, byte: number): void {
    this.#memory.fill(address, length, byte);
  }

  writeU32(address: PhysicalAddress, value: number, order?: ByteOrder): void {
    this.#memory.writeU32(address, value, order);
  }

  writeU64(address: PhysicalAddress, value: bigint | number, order?: ByteOrder): void {
    this.#memory.writeU64(address, value, order);
  }

  #note(address: number, length: number): void {
    for (let page = alignDown(address, PAGE_SIZE); page < address + length; page += PAGE_SIZE) this.#pages.add(page);
  }
}
