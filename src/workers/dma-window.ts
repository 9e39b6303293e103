import { KhoError } from '../errors.js';
import { after, hex, PAGE_SIZE, type PageRange, type PhysicalMemory } from '../memblock/index.js';
import type { DmaGate } from './dma-gate.js';
import type { DmaWindow } from './driver.js';

/** Pages of an instance that its device writes to by itself, whatever the phase. */
export class OpenDmaWindow implements DmaWindow {
  readonly size: number;
  readonly #memory: PhysicalMemory;
  readonly #pages: PageRange;
  readonly #gate: DmaGate;

  /** The caller knows that the pages are the instance's. */
  constructor(memory: PhysicalMemory, pages: PageRange, gate: DmaGate) {
    this.#memory = memory;
    this.#pages = { address: pages.address, pages: pages.pages };
    this.#gate = gate;
    this.size = pages.pages * PAGE_SIZE;
  }

  write(offset: number, bytes: Uint8Array): void {
    this.#access(offset, bytes.length, (memory, address) => memory.write(address, bytes));
  }

  fill(offset: number, length: number, byte: number): void {
    this.#access(offset, length, (memory, address) => memory.fill(address, length, byte));
  }

  #access(offset: number, length: number, work: (memory: PhysicalMemory, address: PageRange['address']) => void): void {
    const { address } = this.#pages;
    const isInside = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
    if (!isInside || offset + length > this.size) {
      const text = `DMA of ${length} bytes at offset ${offset} is not within the ${this.size} bytes at ${hex(address)}`;
      throw new KhoError('KHO_EINVAL', text, { call: 'dma', address, offset, size: length });
    }
    if (!this.#gate.enter()) {
      throw new KhoError('KHO_EPERM', `DMA to ${hex(after(address, offset))}: the run is over`, {
        call: 'dma',
        address,
      });
    }
    try {
      work(this.#memory, after(address, offset));
    } finally {
      this.#gate.leave();
    }
  }
}
