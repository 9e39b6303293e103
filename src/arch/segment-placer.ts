import type { ScratchEntry } from '../abi/index.js';
import { KhoError } from '../errors.js';
import { alignDown, alignUp, hex, PAGE_SIZE, physicalAddress } from '../memblock/index.js';
import type { KexecSegment } from './architecture.js';

export interface PlacementRules {
  /** What is placed, for messages. */
  readonly what: string;
  readonly alignment: number;
  /** Bytes of memory, where it is more than the bytes that are loaded. */
  readonly memorySize?: number;
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
          ({ address, memorySize }) => address < top + room && top < address + memorySize,
        );
        if (blocker === undefined) return physicalAddress(top);
        top = alignDown(blocker.address - room, step);
      }
    }
    throw new KhoError('KHO_EADDRNOTAVAIL', this.#doesNotFit(what, room, step, minimum, maximum), { size });
  }

  /** Puts `bytes` into a place of its own. */
  place(bytes: Uint8Array, rules: PlacementRules): KexecSegment {
    const memorySize = alignUp(Math.max(bytes.length, rules.memorySize ?? 0), PAGE_SIZE);
    const segment = { what: rules.what, address: this.locate(memorySize, rules), bytes, memorySize };
    this.#segments.push(segment);
    return segment;
  }

  /** What -EADDRNOTAVAIL of kexec_file_load() means: which areas there are, and what is wrong with each. */
  #doesNotFit(what: string, room: number, step: number, minimum: number, maximum: number): string {
    const areas = this.#scratch
      .filter(({ size }) => size > 0)
      .map(({ address, size }) => {
        const low = Math.max(address, minimum);
        const high = Math.min(address + size, maximum);
        const taken = this.#segments
          .filter((segment) => segment.address >= low && segment.address < high)
          .reduce((sum, { memorySize }) => sum + memorySize, 0);
        const outside = low >= high ? ', none of it where this may lie' : '';
        return `${hex(address)} of ${formatMiB(size)}${outside || (taken > 0 ? `, ${formatMiB(taken)} of it taken` : '')}`;
      });
    return (
      `${what} needs ${formatMiB(room)}, aligned to ${formatMiB(step)}, and fits into no scratch area (${areas.join('; ')}): ` +
      'with KHO on, the next kernel may be loaded nowhere else; make kho_scratch= larger'
    );
  }
}

function formatMiB(bytes: number): string {
  return bytes % 2 ** 20 === 0 ? `${bytes / 2 ** 20} MiB` : `${(bytes / 2 ** 20).toFixed(2)} MiB`;
}
