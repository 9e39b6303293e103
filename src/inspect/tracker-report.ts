import { type Profile, preservedProblems, type ScratchEntry } from '../abi/index.js';
import type { BootRecord } from '../arch/index.js';
import { KhoError } from '../errors.js';
import { FolioIndex, FolioRuns, hex, type PhysicalAddress } from '../memblock/index.js';
import { memoryOf } from './boot-report.js';
import type { Claims, UnclaimedRange } from './claims.js';
import type { InspectContext } from './context.js';

/** What lists preserved memory, and what it says. */
export interface TrackerReport {
  readonly form: Profile['preservedMemory'];
  /** Its root page or first chunk; the FDT whose properties `mem` list what is preserved. */
  readonly address: number;
  /** Its pages; none of its own where it is the FDT. */
  readonly pages: number;
  readonly objects: number;
  readonly bytes: number;
  /** Number of preserved objects by order. */
  readonly orders: Readonly<Record<number, number>>;
}

/** A tracker as far as it can be read. */
export interface InspectedTracker {
  /** False if not even its first page can be read. */
  readonly readable: boolean;
  readonly objects: FolioIndex;
  readonly pages: readonly PhysicalAddress[];
  readonly report: TrackerReport;
  /** Why its pages may have been reused. */
  readonly reuse: readonly string[];
}

/** So much damage is looked at in a tracker: what has more was none. */
const TRACKER_DAMAGE_MAX = 1000;

/** Walks a tracker; its damage is found, and what is sound behind it is read. `walk` returns the tracker's pages. */
export function inspectTracker(
  { findings }: InspectContext,
  { form, address }: Pick<TrackerReport, 'form'> & { readonly address: PhysicalAddress },
  walk: (visit: FolioRuns['add'], onDamage: (error: KhoError) => void) => readonly PhysicalAddress[],
): InspectedTracker {
  const runs = new FolioRuns();
  const orders: Record<number, number> = {};
  let damage = 0;
  const visit = (at: PhysicalAddress, order: number, count = 1): void => {
    runs.add(at, order, count);
    orders[order] = (orders[order] ?? 0) + count;
  };
  const onDamage = (error: KhoError): void => {
    const text = `the tracker at ${hex(address)} is damaged: ${error.message}`;
    findings.error(new KhoError(error.code, text, error.details), 'tracker');
    if (++damage > TRACKER_DAMAGE_MAX) {
      throw new KhoError('KHO_ETRACKER', `the tracker at ${hex(address)} is no tracker: the walk is given up`, {
        address,
      });
    }
  };
  const pages = findings.attempt(() => walk(visit, onDamage)) ?? [];
  const objects = new FolioIndex(runs);
  const report = { form, address, pages: pages.length, objects: objects.count, bytes: objects.bytes, orders };
  const reuse = damage > 0 ? ['the tracker has entries that lead to no pages of it'] : [];
  return { readable: pages.length > 0 || form === 'mem-properties', objects, pages, report, reuse };
}

/** What has to be right of preserved memory as a whole. */
export function notePreserved(
  { memory, findings }: InspectContext,
  { objects, pages }: Pick<InspectedTracker, 'objects' | 'pages'>,
  handover: {
    readonly record: BootRecord | undefined;
    readonly scratch: readonly ScratchEntry[];
    /** What must be preserved. */
    readonly blobs: readonly { readonly name: string; readonly address: PhysicalAddress; readonly size: number }[];
    /** Pages beside the tracker's own that must not be. */
    readonly apart?: readonly PhysicalAddress[];
  },
): void {
  const { record, scratch, blobs, apart = [] } = handover;
  const usable = memoryOf(memory, record);
  const problems = preservedProblems({
    objects,
    scratch,
    trackerPages: [...pages, ...apart],
    blobs,
    isMemory: (address, size) => usable.isRegionMemory(address, size),
  });
  for (const problem of problems) findings.error(problem, 'preserved memory');
  for (const page of pages) {
    const area = scratch.find(({ address, size }) => page >= address && page < address + size);
    if (area === undefined) continue;
    const text = `the tracker's page at ${hex(page)} lies in the scratch area at ${hex(area.address)}`;
    findings.error(new KhoError('KHO_ETRACKER', text, { address: page }), 'tracker in scratch');
  }
}

/** Who owns what is preserved, and what nobody does; `owners` names those of objects that no structure points to. */
export function claimsReport(claims: Claims | undefined, owners: ReadonlyMap<number, string> | undefined) {
  if (claims === undefined) return { claims: [], unclaimed: { objects: 0, bytes: 0, ranges: [] } };
  if (owners !== undefined) claims.nameRest(owners);
  const ranges: readonly UnclaimedRange[] = claims.unclaimed();
  return {
    claims: claims.owners(),
    unclaimed: {
      objects: ranges.reduce((sum, { objects }) => sum + objects, 0),
      bytes: ranges.reduce((sum, { size }) => sum + size, 0),
      ranges,
    },
  };
}
