import {
  type FailureRecord,
  type MemoryStretchRecord,
  type PreservedRunRecord,
  type RunRecord,
  unbackedMemoryOf,
} from '../coordinator/index.js';
import {
  type Folio,
  FolioIndex,
  FolioRuns,
  hex,
  MemoryStretch,
  PAGE_SIZE,
  type PhysicalAddress,
} from '../memblock/index.js';

/**
 * Where run.json contradicts itself: an object with a digest in memory that has no bytes, or one without a digest in memory
 * that has some. Who moved an object from `ranges` to `unbacked` would have it counted as not verifiable, not as damaged.
 */
export function contradictions(record: RunRecord): FailureRecord[] {
  const guests = unbackedMemoryOf(record).sort((a, b) => a.base - b.base);
  const unbacked = new MemoryStretch(guests);
  const failures: FailureRecord[] = [];
  for (const { address, order } of record.ranges) {
    const row = { address, order, count: 1 };
    if (!isRow(row)) failures.push(contradiction(row, 'is no object'));
    else if (overlaps(guests, row)) failures.push(contradiction(row, 'has a digest, but lies in memory without bytes'));
  }
  for (const row of record.unbacked ?? []) {
    if (!isRow(row)) failures.push(contradiction(row, 'is no object'));
    else if (!unbacked.holds(row.address, endOf(row) - row.address))
      failures.push(contradiction(row, 'has no digest, but lies in memory with bytes'));
  }
  return failures;
}

/**
 * Compares what a successor found preserved with `ranges` and `unbacked` of run.json: they must be the same objects, each
 * once, or an object would be taken for equal that nobody has compared. The record must not contradict itself. Time goes by
 * runs of neighbours where all is the same, by objects otherwise.
 */
export function verifyPreserved(found: readonly PreservedRunRecord[], record: RunRecord): FailureRecord[] {
  const preserved = indexOf(found);
  const recorded = indexOf([
    ...record.ranges.map(({ address, order }) => ({ address, order, count: 1 })),
    ...unbackedOf(record),
  ]);
  if (isSame(preserved, recorded)) return [];
  return differences(preserved, recorded).map(({ address, order, count, listed }) => {
    const objects = count === 1 ? `the object of order ${order}` : `the ${count} objects of order ${order} from there`;
    const text = listed
      ? `${objects} in run.json ${count === 1 ? 'is' : 'are'} not preserved`
      : `run.json does not have ${objects} that ${count === 1 ? 'is' : 'are'} preserved`;
    return { code: 'KHO_EDIGEST', message: `at ${hex(address)}: ${text}`, address };
  });
}

const unbackedOf = ({ unbacked = [] }: RunRecord): readonly PreservedRunRecord[] => unbacked;

function indexOf(rows: readonly PreservedRunRecord[]): FolioIndex {
  const runs = new FolioRuns();
  for (const { address, order, count } of rows) runs.add(address as PhysicalAddress, order, count);
  return new FolioIndex(runs);
}

function isSame(a: FolioIndex, b: FolioIndex): boolean {
  if (a.runCount !== b.runCount || a.count !== b.count) return false;
  for (let run = 0; run < a.runCount; run++) {
    if (a.runStart(run) !== b.runStart(run) || a.runOrder(run) !== b.runOrder(run)) return false;
    if (a.runLength(run) !== b.runLength(run)) return false;
  }
  return true;
}

interface Difference extends PreservedRunRecord {
  count: number;
  /** It is in run.json alone; else it is preserved alone. */
  readonly listed: boolean;
}

/** What only one of them has, neighbours of one order together. */
function differences(preserved: FolioIndex, recorded: FolioIndex): Difference[] {
  const rows: Difference[] = [];
  const add = ({ address, order }: Folio, listed: boolean): void => {
    const last = rows.at(-1);
    const isNext = last?.order === order && address === last.address + last.count * sizeOf(order);
    if (last !== undefined && isNext && last.listed === listed) last.count++;
    else rows.push({ address, order, count: 1, listed });
  };
  for (let a = 0, b = 0; a < preserved.count || b < recorded.count; ) {
    const one = a < preserved.count ? preserved.folio(a) : undefined;
    const other = b < recorded.count ? recorded.folio(b) : undefined;
    const ascent = compare(one, other);
    if (ascent < 0 && one !== undefined) add(one, false);
    if (ascent > 0 && other !== undefined) add(other, true);
    if (ascent <= 0) a++;
    if (ascent >= 0) b++;
  }
  return rows;
}

/** In the order of an index; what is not there comes last. */
function compare(a: Folio | undefined, b: Folio | undefined): number {
  if (a === undefined || b === undefined) return a === undefined ? 1 : -1;
  return a.address - b.address || a.order - b.order;
}

/** Highest order that a tracker can name. */
const ORDER_MAX = 52;

const sizeOf = (order: number): number => PAGE_SIZE * 2 ** order;

/** Whether it can be objects at all: anybody can edit the file. */
function isRow(row: PreservedRunRecord): boolean {
  const { address, order, count } = row;
  return (
    [address, order, count, endOf(row)].every((value) => Number.isSafeInteger(value) && value >= 0) &&
    order <= ORDER_MAX &&
    count > 0 &&
    address % sizeOf(order) === 0
  );
}

const endOf = ({ address, order, count }: PreservedRunRecord): number => address + count * sizeOf(order);

function overlaps(stretches: readonly MemoryStretchRecord[], row: PreservedRunRecord): boolean {
  return stretches.some(({ base, size }) => base < endOf(row) && row.address < base + size);
}

function contradiction({ address, order }: PreservedRunRecord, what: string): FailureRecord {
  return {
    code: 'KHO_EINVAL',
    message: `run.json: what is listed at ${hex(address)} with order ${order} ${what}`,
    address,
  };
}
