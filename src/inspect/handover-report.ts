import {
  KEXEC_METADATA_NAME,
  type KexecMetadata,
  KHO_V1,
  type ProfileName,
  profileNamed,
  ROOT_FDT_SIZE,
  walkPreservedMemory,
} from '../abi/index.js';
import type { BootRecord } from '../arch/index.js';
import { KhoError } from '../errors.js';
import {
  alignDown,
  hex,
  PAGE_SIZE,
  type PhysicalAddress,
  type PhysicalMemory,
  physicalAddress,
} from '../memblock/index.js';
import { type BootRecordReport, inspectScratch, noteCutShort, recordReport } from './boot-report.js';
import { Claims, type OwnerClaim, type UnclaimedRange } from './claims.js';
import { type InspectContext, noteClaims } from './context.js';
import { type Finding, Findings } from './findings.js';
import type { KhoTestReport } from './kho-test-report.js';
import { noteKhoserForm } from './khoser-form-check.js';
import type { LuoReport } from './luo-report.js';
import { inspectOneFdt, openOneFdt } from './one-fdt-report.js';
import type { ReservationReport } from './reservation-report.js';
import { type InspectedRoot, inspectRoot, type RootReport } from './root-report.js';
import { inspectSubtree, type KnownBlobs, type SubtreeReport } from './subtree-report.js';
import { claimsReport, inspectTracker, notePreserved, type TrackerReport } from './tracker-report.js';

/** Where a handover begins: at a boot record, or at a root FDT alone. */
export type HandoverStart = { readonly record: BootRecord } | { readonly root: PhysicalAddress };

export interface InspectOptions {
  /** Read contents too, for digests and checksums; true by default. */
  readonly contents?: boolean;
  /** Who owns preserved objects that no known structure points to, by address. */
  readonly owners?: ReadonlyMap<number, string>;
  /** Read it as a kernel does that speaks this profile alone; else compatible and content tell. */
  readonly profile?: ProfileName;
}

/** What a handover holds, as far as it can be read. Addresses and sizes are numbers of bytes. */
export interface HandoverReport {
  readonly bootRecord?: BootRecordReport;
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
  { contents = true, owners, profile: name }: InspectOptions = {},
): HandoverReport {
  const findings = new Findings();
  const record = 'record' in start ? start.record : undefined;
  if (record?.damage !== undefined) findings.error(record.damage);
  const total = memory.ranges.reduce((sum, { size, backed }) => sum + (backed ? size : 0), 0);
  const budget = { contentBytes: CONTENT_FACTOR * total + CONTENT_HOLES, entries: ENTRIES_MAX };
  const early: InspectContext = { memory, findings, claims: undefined, contents, budget };

  const rootAddress = 'record' in start ? start.record.root : start.root;
  const as = name === undefined ? undefined : profileNamed(name);
  const oneFdt = openOneFdt(early, rootAddress, record?.rootSize, as);
  if (oneFdt !== undefined) return inspectOneFdt(early, oneFdt, { address: rootAddress, record, as }, owners);
  if ('record' in start && start.record.rootSize !== ROOT_FDT_SIZE) {
    const text = `the boot record gives the root FDT ${start.record.rootSize} bytes, expected one page`;
    findings.error(new KhoError('KHO_EIMAGE', text, { address: start.record.address, size: start.record.rootSize }));
  }
  const root = inspectRoot(early, rootAddress, as?.form === 'sub-blobs' ? as : undefined);
  if (record !== undefined) noteCutShort(early, record);
  const scratch = record === undefined ? undefined : inspectScratch(early, record);
  const tracker = root.memoryMap === undefined ? undefined : inspectList(early, root, root.memoryMap);
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
    const blobs = [{ name: 'root FDT', address: rootAddress, size: ROOT_FDT_SIZE }, ...root.subtrees];
    notePreserved(context, tracker, { record, scratch: scratch ?? [], blobs });
    // Said of a list that is sound, where it was not known which form it has.
    if (as === undefined && root.profile === KHO_V1 && tracker.reuse.length === 0) {
      const areas = known.reservations?.map(({ address, size }) => preservedPart(address, size)) ?? [];
      noteKhoserForm(context, tracker.first, tracker.objects, [...blobs, ...areas]);
    }
  }
  const reused = noteReuse(findings, rootAddress, [
    ...(record !== undefined && record.address % PAGE_SIZE !== 0
      ? [`boot_params are there only as the copy of a running kernel, at ${hex(record.address)}`]
      : []),
    ...(root.reused ? ['the page of the root FDT holds none'] : []),
    ...(tracker === undefined ? [] : tracker.reuse),
    ...(tracker?.readable === true && tracker.objects.count === 0 && subtrees.length > 0
      ? ['the tracker is empty']
      : []),
    ...reusedBlobs,
  ]);
  if (
    record !== undefined &&
    root.profile.subtrees.sized &&
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
    ...claimsReport(context.claims, owners),
    reused,
    findings: findings.list(),
  };
}

/** What the memory map leads to. */
function inspectList(context: InspectContext, { profile }: InspectedRoot, memoryMap: PhysicalAddress) {
  const { preservedMemory: form } = profile;
  const tracker = inspectTracker(context, { form, address: memoryMap }, (visit, onDamage) =>
    walkPreservedMemory(context.memory, { profile, memoryMap }, visit, { onDamage }),
  );
  return { ...tracker, first: memoryMap };
}

/** Of a `reserve_mem` area its whole pages are preserved. */
function preservedPart(start: number, size: number): { address: PhysicalAddress; size: number } {
  return { address: physicalAddress(start), size: alignDown(size, PAGE_SIZE) };
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
