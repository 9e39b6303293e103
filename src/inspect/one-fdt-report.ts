import {
  isOneFdtCompatible,
  isReleasedRoot,
  memFolios,
  memRanges,
  ONE_FDT_ROOM_MAX,
  type OneFdt,
  type Profile,
  RESERVE_MEM_NODE_NAME,
  readOneFdt,
  readRootBytes,
  walkKhoserMem,
} from '../abi/index.js';
import type { BootRecord } from '../arch/index.js';
import { KhoError } from '../errors.js';
import { type DtsNode, FdtReader } from '../fdt/index.js';
import {
  alignDown,
  FolioIndex,
  type FolioVisitor,
  hex,
  PAGE_SIZE,
  type PhysicalAddress,
  physicalAddress,
} from '../memblock/index.js';
import { type OpenedFdt, openFdt } from './blob-report.js';
import { inspectScratch, noteCutShort, recordReport } from './boot-report.js';
import { Claims } from './claims.js';
import { type InspectContext, noteClaims } from './context.js';
import { formatDecodedDts } from './decoded-dts.js';
import type { HandoverReport } from './handover-report.js';
import { inspectReservationNodes } from './reservation-report.js';
import type { RootReport } from './root-report.js';
import type { SubtreeReport } from './subtree-report.js';
import { claimsReport, type InspectedTracker, inspectTracker, notePreserved } from './tracker-report.js';

/**
 * What lies at an address, as far as it goes, if it may be the one FDT of a patch series: by its compatible and what is in it,
 * or because it is to be read as such (`as`). `room` is what the boot record gives it.
 */
export function openOneFdt(
  { memory }: InspectContext,
  address: PhysicalAddress,
  room = ONE_FDT_ROOM_MAX,
  as?: Profile,
): OpenedFdt | undefined {
  try {
    const opened = openFdt(readRootBytes(memory, address, room));
    const { root } = opened.tree;
    if (as !== undefined) return as.form === 'one-fdt' ? opened : undefined;
    return isOneFdtCompatible(compatibleOf(root)) && !(root && isReleasedRoot(root)) ? opened : undefined;
  } catch (error) {
    if (error instanceof KhoError) return undefined; // a root FDT of another form says what is wrong
    throw error;
  }
}

/**
 * Reads everything that the one FDT leads to, and checks it, as {@link inspectHandover} does for sub-blobs. A damaged one,
 * and one of which it cannot be told which series it is of, is shown as far as it goes.
 */
export function inspectOneFdt(
  early: InspectContext,
  { tree, refusal, size }: OpenedFdt,
  {
    address,
    record,
    as,
  }: {
    readonly address: PhysicalAddress;
    readonly record: BootRecord | undefined;
    readonly as?: Profile | undefined;
  },
  owners: ReadonlyMap<number, string> | undefined,
): HandoverReport {
  const { findings } = early;
  if (record !== undefined) noteCutShort(early, record);
  const scratch = record === undefined ? undefined : inspectScratch(early, record);
  const fdt = findings.attempt(() => {
    if (!(tree instanceof FdtReader)) throw refusal ?? new KhoError('KHO_EIMAGE', 'the FDT is not whole', { address });
    const read = readOneFdt(tree);
    if (as === undefined || as === read.profile) return read;
    const text = `the FDT is of profile ${read.profile.name}, expected ${as.name}`;
    throw new KhoError('KHO_EIMAGE', text, { address });
  });
  const compatible = compatibleOf(tree.root);
  const root: RootReport = {
    form: 'one-fdt',
    ...(fdt === undefined ? {} : { profile: fdt.profile.name }),
    address,
    size,
    ...(compatible === undefined ? {} : { compatible }),
    dts: formatDecodedDts(tree),
  };
  const found = {
    ...(record === undefined ? {} : { bootRecord: recordReport(record) }),
    root,
    ...(record === undefined || scratch === undefined
      ? {}
      : { scratch: { address: record.scratchArray, areas: scratch } }),
    reused: false,
  };
  if (fdt === undefined) {
    return { ...found, subtrees: [], ...claimsReport(undefined, owners), findings: findings.list() };
  }
  if (scratch !== undefined && !scratch.some((area) => isInside(address, size, area))) {
    const text = `the FDT at ${hex(address)} lies in none of the scratch areas, where kexec loads it`;
    findings.add('warning', new KhoError('KHO_EIMAGE', text, { address }), 'scratch');
  }
  const tracker = trackerOf(early, fdt, address);
  const unreadable = tracker !== undefined && !tracker.readable;
  const claims = unreadable ? undefined : new Claims(tracker?.objects ?? FolioIndex.of([]));
  const context: InspectContext = { ...early, claims };
  if (tracker?.readable === true) {
    const apart = pagesOf(address, size);
    notePreserved(context, tracker, { record, scratch: scratch ?? [], blobs: [], apart });
  }
  const { reservations: node, profile } = fdt;
  const reservations = node === undefined ? [] : inspectReservationNodes(context, node, profile);
  claimMem(context, fdt);
  return {
    ...found,
    ...(tracker?.readable === true ? { tracker: tracker.report } : {}),
    subtrees: driverReports(fdt, address),
    reservations,
    ...claimsReport(claims, owners),
    findings: findings.list(),
  };
}

/** What lists preserved memory; undefined where nothing is preserved. */
function trackerOf(context: InspectContext, fdt: OneFdt, address: PhysicalAddress): InspectedTracker | undefined {
  const { profile, firstChunk } = fdt;
  const { preservedMemory: form, bitmapBits } = profile;
  if (bitmapBits === undefined) {
    return inspectTracker(context, { form, address }, (visit) => visitMem(context, fdt, visit));
  }
  if (firstChunk === undefined) return undefined;
  return inspectTracker(context, { form, address: firstChunk }, (visit, onDamage) =>
    walkKhoserMem(context.memory, firstChunk, bitmapBits, visit, { onDamage }),
  );
}

function visitMem({ findings }: InspectContext, { mem }: OneFdt, visit: FolioVisitor): [] {
  for (const property of mem) {
    const ranges = findings.attempt(() => memRanges(property), 'mem') ?? [];
    for (const range of ranges) for (const { address, order } of memFolios(range)) visit(address, order);
  }
  return [];
}

/** Series v4 says whose each preserved object is: the driver in whose node it is listed. */
function claimMem(context: InspectContext, { mem }: OneFdt): void {
  for (const property of mem) {
    const [, driver = ''] = property.path.split('/');
    if (driver === RESERVE_MEM_NODE_NAME) continue; // claimed as reservations
    const owner = `driver ${driver}`;
    let ranges: ReturnType<typeof memRanges> = [];
    try {
      ranges = memRanges(property);
    } catch (error) {
      if (!(error instanceof KhoError)) throw error; // found when it was visited
    }
    for (const range of ranges) {
      for (const { address, order } of memFolios(range)) {
        noteClaims(context, (claims) => claims.folio(owner, `memory of ${property.path}`, address, order), 'mem');
      }
    }
  }
}

/** The nodes of drivers: where they lie in the FDT, and with how many instances. */
function driverReports({ reader, drivers }: OneFdt, root: PhysicalAddress): SubtreeReport[] {
  const nodes = [...reader.root.children()];
  return drivers.map((node) => {
    const next = nodes.find(({ offset }) => offset > node.offset)?.offset ?? reader.structureEnd;
    const compatible = compatibleOf(node);
    return {
      name: node.name,
      address: root + node.offset,
      size: next - node.offset,
      format: 'node',
      ...(compatible === undefined ? {} : { compatible }),
      instances: [...node.children()].length,
    };
  });
}

function compatibleOf(node: DtsNode | undefined): string | undefined {
  for (const { name, value } of node?.properties() ?? []) {
    if (name === 'compatible') return Buffer.from(value).toString('latin1').replace(/\0.*$/s, '');
  }
  return undefined;
}

function pagesOf(address: number, size: number): PhysicalAddress[] {
  return Array.from({ length: Math.ceil(size / PAGE_SIZE) }, (_, page) => physicalAddress(address + page * PAGE_SIZE));
}

function isInside(address: number, size: number, area: { readonly address: number; readonly size: number }): boolean {
  return address >= area.address && alignDown(address + size - 1, PAGE_SIZE) < area.address + area.size;
}
