import type { ScratchEntry } from '../abi/index.js';
import { KhoError } from '../errors.js';
import { alignDown, alignUp, hex, PAGE_SIZE, type PhysicalAddress, physicalAddress } from '../memblock/index.js';
import type { KexecSegment } from './architecture.js';

export interface PlacementRules {
  /** What is placed, for messages. */
  readonly what: string;
  readonly alignment: number;
  /** Lowest address and end of the allowed range. */
  readonly minimum?: number;
  readonly maximum?: number;
}

/**
 * Places kexec segments as kexec_file_load() does while KHO is on: only inside scratch areas, in the order of the
 * array, from the top of an area down (kho_locate_mem_hole(), Linux 7.2). Segments are whole pages.
 */
export class SegmentPlacer {
  readonly #scratch: readonly ScratchEntry[];
  readonly #segments: KexecSegment[] = [];

  constructor(scratch: readonly ScratchEntry[]) {
    this.#scratch = scratch;
  }

  get segments(): readonly KexecSegment[] {
    return this.#segments;
  }

  /** Finds room for `size` bytes. KHO_EADDRNOTAVAIL, the kernel's error, when no scratch area has it. */
  locate(size: number, { what, alignment, minimum = 0, maximum = Number.POSITIVE_INFINITY }: PlacementRules) {
    const room = alignUp(size, PAGE_SIZE);
    const step = Math.max(alignment, PAGE_SIZE);
    for (const area of this.#scratch) {
      const low = Math.max(area.address, minimum);
      let top = alignDown(Math.min(area.address + area.size, maximum) - room, step);
      while (top >= low) {
        const blocker = this.#segments.find(
          ({ address, bytes }) => address < top + room && top < address + bytes.length,
        );
        if (blocker === undefined) return physicalAddress(top);
        top = alignDown(blocker.address - room, step);
      }
    }
    const largest = Math.max(0, ...this.#scratch.map((area) => area.size));
    throw new KhoError(
      'KHO_EADDRNOTAVAIL',
      `${what} (${hex(size)} bytes) fits into no scratch area (the largest has ${hex(largest)} bytes); the next kernel may be loaded nowhere else`,
      { size },
    );
  }

  /** Puts `bytes`, padded to whole pages, into a place of its own and returns its address. */
  place(bytes: Uint8Array, rules: PlacementRules): PhysicalAddress {
    const address = this.locate(bytes.length, rules);
    const padded = new Uint8Array(alignUp(bytes.length, PAGE_SIZE));
    padded.set(bytes);
    this.#segments.push({ address, bytes: padded });
    return address;
  }
}
