import {
  decodeScratchArray,
  KEXEC_METADATA_NAME,
  type KexecMetadata,
  preservedProblems,
  ROOT_FDT_SIZE,
  readUntrusted,
  type ScratchEntry,
  type Subtree,
} from '../abi/index.js';
import { type BootRecord, usableMemory } from '../arch/index.js';
import { KhoError } from '../errors.js';
import {
  alignDown,
  type Folio,
  FolioIndex,
  hex,
  Memblock,
  PAGE_SIZE,
  type PhysicalAddress,
  type PhysicalMemory,
  walkRadixTree,
} from '../memblock/index.js';
import { Claims, type OwnerClaim, type UnclaimedRange } from './claims.js';
import { type InspectContext, noteClaims } from './context.js';
import { type Finding, Findings } from './findings.js';
import type { KhoTestReport } from './kho-test-report.js';
import type { LuoReport } from './luo-report.js';
import type { ReservationReport } from './reservation-report.js';
import { inspectRoot, type RootReport } from './root-report.js';
import { inspectSubtree, type KnownBlobs, type SubtreeReport } from './subtree-report.js';

/** Where a handover begins: at a boot record, or at a root FDT alone. */
export type HandoverStart = { readonly record: BootRecord } | { readonly root: PhysicalAddress };

export interface InspectOptions {
  /** Read contents too, for digests and checksums; true by default. */
  readonly contents?: boolean;
  /** Who owns preserved objects that no known structure points to, by address. */
  readonly owners?: ReadonlyMap<number, string>;
}

/** What the tracker says. */
export interface TrackerReport {
  /** Its root page. */
  readonly address: number;
  /** Its pages. */
  readonly pages: number;
  readonly objects: number;
  readonly bytes: number;
  /** Number of preserved objects by order. */
  readonly orders: Readonly<Record<number, number>>;
}

/** What a handover holds, as far as it can be read. Addresses and sizes are numbers of bytes. */
export interface HandoverReport {
  readonly bootRecord?: {
    readonly kind: string;
    readonly address: number;
    readonly commandLine: string;
    readonly firmware: readonly { readonly base: number; readonly size: number; readonly usable: boolean }[];
  };
  readonly root?: RootReport;
  readonly scratch?: {
    readonly address: number;
    readonly areas: readonly { readonly address: number; readonly size: number }[];
  };
  readonly tracker?: TrackerReport;
  readonly subtrees: readonly SubtreeReport[];
  readonly metadata?: KexecMetadata;
  readonly reservations?: readonly ReservationReport[];
  readonly khoTest?: KhoTestReport;
  readonly luo?: LuoReport;
  /** Preserved objects by owner. */
  readonly claims: readonly OwnerClaim[];
  /** Preserved objects that no structure known here points to: information, not an error. */
  readonly unclaimed: {
    readonly objects: number;
    readonly bytes: number;
    readonly ranges: readonly UnclaimedRange[];
  };
  /** Whether it looks as if the memory was taken after the next kernel booted, when all this may have been overwritten. */
  readonly reused: boolean;
  readonly findings: readonly Finding[];
}

const SCRATCH_ARRAY_MAX = 64 * 1024;
/** So much damage is looked at in a tracker: what has more was none. */
const TRACKER_DAMAGE_MAX = 1000;
/** Content that may be read: all of memory a few times over, and some holes. */
const CONTENT_FACTOR = 4;
const CONTENT_HOLES = 2 ** 33;
const ENTRIES_MAX = 2 ** 20;

/**
 * Reads everything that a handover leads to, and checks it: whether each object that a structure points to was preserved
 * at the order that its restore expects, whether nothing preserved overlaps or lies in scratch, and what every reader
 * checks of its own format. What is wrong is a finding; it never hides what is not. Nothing is thrown but what reading the
 * file throws.
 */
export function inspectHandover(
  memory: PhysicalMemory,
  start: HandoverStart,
  { contents = true, owners }: InspectOptions = {},
): HandoverReport {
  const findings = new Findings();
  const record = 'record' in start ? start.record : undefined;
  if (record?.damage !== undefined) findings.error(record.damage);
  const total = memory.ranges.reduce((sum, { size, backed }) => sum + (backed ? size : 0), 0);
  const budget = { contentBytes: CONTENT_FACTOR * total + CONTENT_HOLES, entries: ENTRIES_MAX };
  const early: InspectContext = { memory, findings, claims: undefined, contents, budget };

  const rootAddress = 'record' in start ? start.record.root : start.root;
  if ('record' in start && start.record.rootSize !== ROOT_FDT_SIZE) {
    const text = `the boot record gives the root FDT ${start.record.rootSize} bytes, expected one page`;
    findings.error(new KhoError('KHO_EIMAGE', text, { address: start.record.address, size: start.record.rootSize }));
  }
  const root = inspectRoot(early, rootAddress);
  if (record !== undefined) noteCutShort(early, record);
  const scratch = record === undefined ? undefined : inspectScratch(early, record);
  const tracker = root.memoryMap === undefined ? undefined : inspectTracker(early, root.memoryMap);
  const context: InspectContext = {
    ...early,
    claims: tracker?.readable === true ? new Claims(tracker.objects) : undefined,
  };
  noteClaims(context, (claims) => claims.blob('root FDT', 'the root FDT', rootAddress, ROOT_FDT_SIZE), 'root FDT');

  const known: KnownBlobs = {};
  const reusedBlobs: string[] = [];
  const subtrees = root.subtrees.map((subtree) => {
    const { report, reused } = inspectSubtree(context, subtree, known);
    if (reused) reusedBlobs.push(`the blob '${subtree.name}' is something else`);
    return report;
  });
  if (tracker?.readable === true) {
    noteState(context, tracker, { record, scratch: scratch ?? [], rootAddress, subtrees: root.subtrees });
  }
  const reused = noteReuse(findings, rootAddress, [
    ...(record !== undefined && record.address % PAGE_SIZE !== 0
      ? [`boot_params are there only as the copy of a running kernel, at ${hex(record.address)}`]
      : []),
    ...(root.reused ? ['the page of the root FDT holds none'] : []),
    ...(tracker === undefined ? [] : tracker.reuse),
    ...(tracker?.readable === true && tracker.objects.folios.length === 0 && subtrees.length > 0
      ? ['the tracker is empty']
      : []),
    ...reusedBlobs,
  ]);
  if (
    record !== undefined &&
    root.subtrees.length > 0 &&
    !root.subtrees.some(({ name }) => name === KEXEC_METADATA_NAME)
  ) {
    const text = `there is no ${KEXEC_METADATA_NAME}: the next kernel does not say what it was started from`;
    findings.add('info', new KhoError('KHO_ENOENT', text));
  }
  return {
    ...(record === undefined ? {} : { bootRecord: recordReport(record) }),
    ...(root.report === undefined ? {} : { root: root.report }),
    ...(record === undefined || scratch === undefined
      ? {}
      : { scratch: { address: record.scratchArray, areas: scratch } }),
    ...(tracker?.readable === true ? { tracker: tracker.report } : {}),
    subtrees,
    ...known,
    ...claimsReport(context, owners),
    reused,
    findings: findings.list(),
  };
}

function recordReport({ kind, address, commandLine, firmware }: BootRecord) {
  return { kind, address, commandLine, firmware };
}

/** An image that ends before memory does was cut short, or is another machine's. */
function noteCutShort({ memory, findings }: InspectContext, { firmware }: BootRecord): void {
  const end = Math.max(0, ...firmware.filter(({ usable }) => usable).map(({ base, size }) => base + size));
  const last = memory.ranges.at(-1);
  const there = last === undefined ? 0 : last.base + last.size;
  if (alignDown(end, PAGE_SIZE) <= there) return;
  const text = `the image is cut short: it ends at ${hex(there)}, and firmware's map has memory up to ${hex(end)}`;
  findings.error(new KhoError('KHO_EIMAGE', text, { address: there }));
}

function inspectScratch({ memory, findings }: InspectContext, record: BootRecord): readonly ScratchEntry[] | undefined {
  const { scratchArray: address, scratchArraySize: size } = record;
  const areas = findings.attempt(() => {
    if (size > SCRATCH_ARRAY_MAX) {
      throw new KhoError('KHO_EIMAGE', `the scratch array has ${size} bytes, more than 64 KiB`, { address });
    }
    return decodeScratchArray(readUntrusted(memory, address, size, 'the scratch array'));
  });
  if (areas === undefined) return undefined;
  const usable = usableMemory(record.firmware);
  for (const area of areas) {
    if (area.size === 0 || usable.isRegionMemory(area.address, area.size)) continue;
    const text = `the scratch area at ${hex(area.address)} (${hex(area.size)} bytes) is not in memory`;
    findings.error(new KhoError('KHO_EIMAGE', text, { address: area.address, size: area.size }), 'scratch');
  }
  if (!areas.some((area) => record.address >= area.address && record.address < area.address + area.size)) {
    const text = `the boot record at ${hex(record.address)} lies in none of the scratch areas`;
    findings.add('warning', new KhoError('KHO_EIMAGE', text, { address: record.address }), 'scratch');
  }
  return areas;
}

interface InspectedTracker {
  /** False if not even its root page can be read. */
  readonly readable: boolean;
  readonly objects: FolioIndex;
  readonly pages: readonly PhysicalAddress[];
  readonly report: TrackerReport;
  /** Why its pages may have been reused. */
  readonly reuse: readonly string[];
}

function inspectTracker({ memory, findings }: InspectContext, address: PhysicalAddress): InspectedTracker {
  const folios: Folio[] = [];
  const orders: Record<number, number> = {};
  let damage = 0;
  let pages: readonly PhysicalAddress[] = [];
  const visit = (at: PhysicalAddress, order: number): void => {
    folios.push({ address: at, order });
    orders[order] = (orders[order] ?? 0) + 1;
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
  findings.attempt(() => {
    pages = walkRadixTree(memory, address, visit, { onDamage });
  });
  const objects = new FolioIndex(folios);
  const report = { address, pages: pages.length, objects: folios.length, bytes: objects.bytes, orders };
  const reuse = damage > 0 ? ['the tracker has entries that lead to no pages of it'] : [];
  return { readable: pages.length > 0, objects, pages, report, reuse };
}

/** What has to be right of preserved memory as a whole. */
function noteState(
  { memory, findings }: InspectContext,
  { objects, pages }: InspectedTracker,
  handover: {
    record: BootRecord | undefined;
    scratch: readonly ScratchEntry[];
    rootAddress: PhysicalAddress;
    subtrees: readonly Subtree[];
  },
): void {
  const { record, scratch, rootAddress, subtrees } = handover;
  const usable = record === undefined ? memoryOf(memory) : usableMemory(record.firmware);
  const problems = preservedProblems({
    objects,
    scratch,
    trackerPages: pages,
    blobs: [{ name: 'root FDT', address: rootAddress, size: ROOT_FDT_SIZE }, ...subtrees],
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

/** What the image itself says of memory, where there is no boot record. */
function memoryOf(memory: PhysicalMemory): Memblock {
  const memblock = new Memblock();
  for (const { base, size } of memory.ranges) memblock.add(base, size);
  return memblock;
}

/** Structures that are no longer there are mostly gone for one reason. */
function noteReuse(findings: Findings, address: number, reasons: readonly string[]): boolean {
  if (reasons.length === 0) return false;
  const text =
    `this memory may have been taken after the next kernel booted, when pages of a handover are free for other use: ` +
    `${reasons.join(', ')}`;
  findings.add('warning', new KhoError('KHO_EIMAGE', text, { address }));
  return true;
}

function claimsReport({ claims }: InspectContext, owners: ReadonlyMap<number, string> | undefined) {
  if (claims === undefined) return { claims: [], unclaimed: { objects: 0, bytes: 0, ranges: [] } };
  if (owners !== undefined) claims.nameRest(owners);
  const ranges = claims.unclaimed();
  return {
    claims: claims.owners(),
    unclaimed: {
      objects: ranges.reduce((sum, { objects }) => sum + objects, 0),
      bytes: ranges.reduce((sum, { size }) => sum + size, 0),
      ranges,
    },
  };
}
