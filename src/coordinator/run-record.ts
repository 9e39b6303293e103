import type { SerializedKhoError } from '../errors.js';
import { PAGE_SIZE } from '../memblock/index.js';
import type { ModeChoice } from './mode-choice.js';
import type { Budget, HostOptions, LateWritePolicy, Trigger } from './plan.js';
import type { Timeline } from './timeline.js';

export const RUN_RECORD_VERSION = 1;

/** Whose memory a range is. */
export interface RangeOwner {
  /**
   * `pages`: a driver's own; `guest`: a driver's guest memory; `blob`: a sub-FDT or sub-blob; `root`: the root FDT;
   * `reserve_mem`: a named reservation.
   */
  readonly kind: 'pages' | 'guest' | 'blob' | 'root' | 'reserve_mem';
  /** The driver, or the name of the sub-blob or reservation. */
  readonly name: string;
  readonly instance?: string;
  readonly shard?: number;
}

/** One preserved object, with the digest of its content at the jump. */
export interface RangeRecord {
  readonly address: number;
  readonly order: number;
  readonly owner: RangeOwner;
  readonly sha256: string;
  /** CRC-32 of each page, little-endian, base64: tells which page of a large object differs. */
  readonly pageCrcs: string;
}

/** Preserved objects of one order, each where the one before ends. */
export interface PreservedRunRecord {
  /** Of the first. */
  readonly address: number;
  /** Of each. */
  readonly order: number;
  readonly count: number;
}

/**
 * Preserved objects of which there is no content here, in a row: guest memory. That they are preserved can be verified, what
 * is in them cannot.
 */
export interface UnbackedRecord extends PreservedRunRecord {
  readonly owner: RangeOwner;
}

/** Some memory of a host. */
export interface MemoryStretchRecord {
  readonly base: number;
  readonly size: number;
}

/** A page of what lists preserved memory; not preserved itself, but needed to find what is. */
export interface TrackerPageRecord {
  readonly address: number;
  readonly sha256: string;
}

export interface DriverRecord {
  readonly name: string;
  readonly compatible: string;
  readonly hosted: boolean;
  /** URL and spelling of the module, for `verify`. */
  readonly module: { readonly url: string; readonly origin: string };
  readonly instances: number;
  readonly shards: number;
  readonly nodes: number;
  readonly properties: number;
  /** The driver's FDT in the modelled memory; where all is in one FDT, the driver's node of it. */
  readonly blob: { readonly address: number; readonly size: number };
  /** Bytes of preserved pages that the driver's instances own, without the FDT. */
  readonly pageBytes: number;
  /** Bytes of preserved guest memory; absent if there is none. */
  readonly guestBytes?: number;
  /** Bytes of nodes, properties and names that its shards have written. */
  readonly stateBytes: number;
  /** How many of them were there before serialize, and stayed. */
  readonly earlyBytes: number;
  /** Absent unless it was frozen before the blackout. */
  readonly frozenEarly?: true;
  /** Milliseconds that one callback may take in the blackout. */
  readonly budget?: number;
}

export interface InstanceRecord {
  readonly driver: string;
  readonly name: string;
  /** SHA-256 of the snapshot of its state, taken while it was frozen. */
  readonly digest: string;
  /** SHA-256 of contents that user space of the next kernel can name, by that name. */
  readonly digests?: Readonly<Record<string, string>>;
  /** Byte offset of its node in the driver's FDT, or in the one FDT: tells whose bytes a damaged page of it holds. */
  readonly blobOffset: number;
}

/** What the successor did with one instance. */
export interface RestoredInstance {
  readonly driver: string;
  readonly name: string;
  /** SHA-256 of the snapshot of the rebuilt state. */
  readonly digest: string;
}

/** An object of 2^order pages that was preserved. */
export interface PreservedObject {
  readonly address: number;
  readonly order: number;
}

/** Whose page was written to too late. */
export interface LateWriteSource {
  readonly driver: string;
  readonly instance: string;
  readonly shard: number;
}

/** A page that has changed after its driver was frozen. */
export interface LateWriteRecord extends LateWriteSource {
  /** When it was seen: before the jump, or by the successor before drivers restored. */
  readonly found: 'jump' | 'successor';
  /** Of the page. */
  readonly address: number;
  /** Bytes from there to the first line of 64 bytes that differs. */
  readonly offset: number;
}

/** A failure in words, as it is printed and as `--json` shows it. */
export interface FailureRecord {
  readonly code: string;
  readonly message: string;
  readonly driver?: string;
  readonly instance?: string;
  readonly address?: number;
  /** Bytes from {@link address}. */
  readonly offset?: number;
}

/** An error as the failure that it is. */
export function failureOf({
  code,
  message,
  details: { driver, instance },
}: Pick<SerializedKhoError, 'code' | 'message' | 'details'>): FailureRecord {
  return { code, message, ...(driver !== undefined && { driver }), ...(instance !== undefined && { instance }) };
}

/** What the successor found and did: the answer of its process. */
export interface SuccessorReport {
  /** The profile that it found the handover to be of. */
  readonly profile: string;
  readonly bootRecord: { readonly kind: string; readonly address: number; readonly root: number };
  readonly previousRelease: string;
  readonly kexecCount: number;
  readonly preservedObjects: number;
  readonly preservedBytes: number;
  /** What was preserved, ascending; absent unless it was asked for (`listPreserved` of its input). */
  readonly preserved?: readonly PreservedRunRecord[];
  readonly restored: readonly RestoredInstance[];
  readonly revived: readonly { readonly name: string; readonly address: number; readonly size: number }[];
  readonly unclaimed: readonly PreservedObject[];
  /** What its drivers gave back, and the core: the blobs. All else that was preserved is in use. */
  readonly discarded: readonly PreservedObject[];
  readonly failures: readonly FailureRecord[];
  /** Pages that changed after the jump; absent if there are none, or nobody looked. */
  readonly lateWrites?: readonly LateWriteRecord[];
  readonly timeline: Timeline;
}

/** A kernel that was loaded for the jump, and where its segments lie. */
export interface KexecRecord {
  /** Files as they were named. */
  readonly kernel: string;
  readonly initrd?: string;
  readonly commandLine?: string;
  /** The kernel's own version text. */
  readonly version: string;
  /** Physical address of its entry point. */
  readonly entry: number;
  readonly segments: readonly {
    readonly what: string;
    readonly address: number;
    /** Bytes that were loaded. */
    readonly size: number;
    /** Bytes of memory that are the segment's. */
    readonly memorySize: number;
  }[];
}

/** run.json: everything about a run that is not handed over itself. Times, thread ids and dates live only here. */
export interface RunRecord {
  readonly schemaVersion: typeof RUN_RECORD_VERSION;
  readonly khorus: string;
  readonly node: string;
  readonly date: string;
  readonly host: HostOptions & {
    readonly ranges: readonly {
      readonly base: number;
      readonly size: number;
      readonly nid: number;
      /** Absent where there is memory behind it. */
      readonly backed?: false;
    }[];
    readonly scratch: readonly { readonly address: number; readonly size: number }[];
    readonly reserveMem: readonly {
      readonly name: string;
      readonly address: number;
      readonly size: number;
      /** Of its whole pages at the jump; a part of a page at the end is not preserved. */
      readonly sha256: string;
    }[];
  };
  readonly profile: string;
  readonly mode: string;
  /** Why, if mode `auto` chose it. */
  readonly modeChoice?: ModeChoice;
  readonly workers: number;
  readonly seed: number;
  /** Bytes of room for the one FDT; absent where each driver has a blob. */
  readonly fdtMax?: number;
  readonly budget?: Budget;
  readonly trigger: Trigger;
  /** What changed before the jump after its driver was frozen; absent if nobody looked. */
  readonly lateWrites?: { readonly policy: LateWritePolicy; readonly found: readonly LateWriteRecord[] };
  /** What failed in `shutdown` and was passed over; absent if nothing did. */
  readonly shutdownFailures?: readonly FailureRecord[];
  /** Absent unless a kernel was loaded. */
  readonly kexec?: KexecRecord;
  readonly drivers: readonly DriverRecord[];
  readonly instances: readonly InstanceRecord[];
  /** The root FDT; or the one FDT, with its digests, since it is none of the ranges. */
  readonly root: { readonly address: number; readonly size: number } & Partial<
    Pick<RangeRecord, 'sha256' | 'pageCrcs'>
  >;
  readonly ranges: readonly RangeRecord[];
  /** Absent if there are none. */
  readonly unbacked?: readonly UnbackedRecord[];
  readonly tracker: readonly TrackerPageRecord[];
  readonly timeline: Timeline;
  /** Absent until a successor ran. */
  readonly successor?: SuccessorReport;
}

/** The memory of a host, or of its record, that has no bytes in its image. */
export function unbackedMemoryOf({
  host,
}: {
  readonly host: { readonly ranges: readonly (MemoryStretchRecord & { readonly backed?: boolean })[] };
}): MemoryStretchRecord[] {
  return host.ranges.flatMap(({ base, size, backed = true }) => (backed ? [] : [{ base, size }]));
}

/** Bytes of preserved memory with content: of which there are digests. */
export function digestedBytes({ ranges }: Pick<RunRecord, 'ranges'>): number {
  return ranges.reduce((sum, { order }) => sum + 2 ** order * PAGE_SIZE, 0);
}

/** Bytes of preserved memory without content. */
export function unbackedBytes({ unbacked = [] }: Pick<RunRecord, 'unbacked'>): number {
  return unbacked.reduce((sum, { order, count }) => sum + count * 2 ** order * PAGE_SIZE, 0);
}

/** Bytes that the run's memory image has: up to the end of memory. */
export function imageSizeOf({ host }: Pick<RunRecord, 'host'>): number {
  const { base = 0, size = 0 } = host.ranges.at(-1) ?? {};
  return base + size;
}
