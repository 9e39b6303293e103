import { alignDown, hex, PAGE_SIZE, type PhysicalAddress, physicalAddress } from './address.js';
import type { ReserveMemParameter } from './command-line.js';
import type { Memblock } from './memblock.js';
import { outOfMemory } from './out-of-memory.js';
import type { PageRange } from './page-range.js';

/** Memory that `reserve_mem=` reserved under a name, so that the next kernel finds the same bytes. */
export interface ReservedMem {
  name: string;
  address: PhysicalAddress;
  /** Bytes, as asked for: not rounded. Whole pages of it are preserved. */
  size: number;
}

/**
 * The pages of a reservation that are preserved, as Linux 7.2 counts them: from the page of its address on, as many as its
 * size has whole ones. So the end of an area that is not aligned to pages is lost.
 */
export function preservedPages({ address, size }: Pick<ReservedMem, 'address' | 'size'>): PageRange {
  return { address: physicalAddress(alignDown(address, PAGE_SIZE)), pages: Math.floor(size / PAGE_SIZE) };
}

/** What became of the reservations on the successor's side. */
export interface RevivedMem {
  /** In the order of the parameters. */
  reserved: (ReservedMem & { revived: boolean })[];
  /** Why a reservation of the predecessor was not taken over. */
  warnings: string[];
}

/**
 * Reserves memory for each parameter, in their order, from the top of memory down.
 *
 * It happens before scratch is reserved, so it is RSRV_KERN and makes scratch larger; and a place above 4 GiB, or on
 * any node, is as good as another. KHO_ENOMEM names the one for which there is no room; those before it stay.
 */
export function reserveNamedMemory(memblock: Memblock, parameters: readonly ReserveMemParameter[]): ReservedMem[] {
  return parameters.map(({ name, size, align }) => {
    const address = memblock.physAlloc(size, align);
    if (address === undefined) throw outOfMemory(memblock, `reserve_mem '${name}'`, size);
    return { name, address, size };
  });
}

/**
 * The successor's side (reserve_mem_kho_revive of 7.2): a reservation of the same name is taken over if its address has
 * the wanted alignment and its size is the same; that memory is reserved already, being preserved. Otherwise the memory
 * is reserved anew, while memblock still allocates from scratch alone, and holds nothing of the predecessor's.
 *
 * @param predecessor what the predecessor handed over; undefined without a handover, and then nothing is warned of
 */
export function reviveNamedMemory(
  memblock: Memblock,
  parameters: readonly ReserveMemParameter[],
  predecessor: readonly ReservedMem[] | undefined,
): RevivedMem {
  const warnings: string[] = [];
  const reserved = parameters.map((parameter) => {
    const candidate = predecessor?.find((other) => other.name === parameter.name);
    if (predecessor !== undefined) {
      const problem = mismatch(parameter, candidate);
      if (candidate !== undefined && problem === undefined) return { ...candidate, revived: true };
      warnings.push(`reserve_mem '${parameter.name}' is not revived: ${problem}`);
    }
    const [fresh] = reserveNamedMemory(memblock, [parameter]);
    return { ...fresh, revived: false };
  });
  return { reserved, warnings };
}

function mismatch(wanted: ReserveMemParameter, candidate: ReservedMem | undefined): string | undefined {
  if (candidate === undefined) return 'the handover has none of this name';
  // The kernel masks with align - 1, whether or not that is a mask.
  if ((BigInt(candidate.address) & (BigInt(wanted.align) - 1n)) !== 0n) {
    return `its address ${hex(candidate.address)} is not aligned to ${hex(wanted.align)}`;
  }
  if (candidate.size !== wanted.size) return `its size ${hex(candidate.size)} is not ${hex(wanted.size)}`;
  return undefined;
}
