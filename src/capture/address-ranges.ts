import { hex } from '../memblock/index.js';

/** [base, end), in bytes. */
export interface AddressRange {
  readonly base: number;
  /** Exclusive, unlike in the kernel's files. */
  readonly end: number;
}

/** Where a range was found, for messages: `/proc/iomem:12`. */
export interface FoundRange extends AddressRange {
  readonly where: string;
}

/** As the kernel's files write it: both ends inclusive. */
export function rangeText({ base, end }: AddressRange): string {
  return `${hex(base)}-${hex(end - 1)}`;
}

/** The sum of the ranges' sizes. */
export function totalOf(ranges: readonly AddressRange[]): number {
  return ranges.reduce((sum, { base, end }) => sum + (end - base), 0);
}

/** In order of address. */
export function sorted<T extends AddressRange>(ranges: Iterable<T>): T[] {
  return [...ranges].sort((a, b) => a.base - b.base || a.end - b.end);
}

/** The same addresses in as few ranges as can be, in order. */
export function union(...lists: readonly (readonly AddressRange[])[]): AddressRange[] {
  const joined: { base: number; end: number }[] = [];
  for (const { base, end } of sorted(lists.flat())) {
    const last = joined.at(-1);
    if (last !== undefined && base <= last.end) last.end = Math.max(last.end, end);
    else joined.push({ base, end });
  }
  return joined;
}

/** Whether a range shares a byte with any of `others`. */
export function overlapsAny({ base, end }: AddressRange, others: readonly AddressRange[]): boolean {
  return others.some((other) => base < other.end && other.base < end);
}

/** What is in both. */
export function intersection(a: readonly AddressRange[], b: readonly AddressRange[]): AddressRange[] {
  return difference(a, difference(a, b));
}

/** What is in `a` and not in `b`. */
export function difference(a: readonly AddressRange[], b: readonly AddressRange[]): AddressRange[] {
  const holes = union(b);
  const left: AddressRange[] = [];
  let first = 0;
  for (const { base, end } of union(a)) {
    let at = base;
    while (first < holes.length && holes[first].end <= base) first++;
    for (let hole = first; hole < holes.length && holes[hole].base < end; hole++) {
      if (holes[hole].base > at) left.push({ base: at, end: holes[hole].base });
      at = Math.max(at, holes[hole].end);
    }
    if (at < end) left.push({ base: at, end });
  }
  return left;
}
