import { KhoError } from '../errors.js';
import { PAGE_SIZE, PHYS_ADDR_MAX, type PhysicalAddress, physicalAddress } from '../memblock/index.js';
import type { LuoFile } from './luo-file.js';
import { type LuoFlb, readLuoFlbs } from './luo-flb.js';
import { readLuoSessions } from './luo-session.js';
import { MEMFD_LUO_COMPATIBLE, type Memfd, readMemfd } from './memfd-luo.js';
import { type ReadableMemory, UntrustedMemory, writeText } from './structure.js';

/**
 * The Live Update Orchestrator's blob (Linux 7.2 and 7.3, include/linux/kho/abi/luo.h): not an FDT but a packed structure
 * in a page of its own, a folio of order 0.
 *
 * ```text
 *   luo_ser, 32 bytes
 *    0 char compatible[8] = "luo-v5"
 *    8 u64 liveupdate_num          1 after a cold boot
 *   16 u64 sessions_pa ──▶ KHO blocks of sessions ──▶ KHO blocks of files ──▶ what each handler wrote
 *   24 u64 flbs_pa ──────▶ FLB page
 * ```
 *
 * No sessions is 0. Linux always has an FLB page, but reads a blob without one. Linux *panics* when it finds another
 * compatible or a shorter blob under this name, even without liveupdate=on.
 */
export interface LuoHeader {
  /** Live updates so far, this one included. */
  readonly liveupdateNumber: bigint;
  /** The first block of sessions. */
  readonly sessions: PhysicalAddress | undefined;
  /** The page of FLBs. */
  readonly flbs: PhysicalAddress | undefined;
}

/** The name of the blob in the root FDT. */
export const LUO_SUBTREE_NAME = 'LUO';
export const LUO_COMPATIBLE = 'luo-v5';
const COMPATIBLE_AT = 0;
const COMPATIBLE_SIZE = 8;
const NUMBER_AT = COMPATIBLE_AT + COMPATIBLE_SIZE;
const SESSIONS_AT = NUMBER_AT + 8;
const FLBS_AT = SESSIONS_AT + 8;
export const LUO_SIZE = FLBS_AT + 8;

export function encodeLuo({ liveupdateNumber, sessions, flbs }: LuoHeader): Uint8Array {
  const bytes = new Uint8Array(LUO_SIZE);
  writeText(bytes, COMPATIBLE_AT, COMPATIBLE_SIZE, 'compatible', LUO_COMPATIBLE);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(NUMBER_AT, liveupdateNumber, true);
  view.setBigUint64(SESSIONS_AT, BigInt(sessions ?? 0), true);
  view.setBigUint64(FLBS_AT, BigInt(flbs ?? 0), true);
  return bytes;
}

/** The structure alone. KHO_EIMAGE if the blob is shorter, of another version, or outside of memory. */
export function readLuoHeader(memory: ReadableMemory, address: PhysicalAddress, size: number): LuoHeader {
  if (size < LUO_SIZE) {
    throw new KhoError('KHO_EIMAGE', `the LUO blob has ${size} bytes, expected ${LUO_SIZE}`, { address, size });
  }
  const header = UntrustedMemory.of(memory).structure(address, LUO_SIZE, 'the LUO blob');
  const compatible = header.text(COMPATIBLE_AT, COMPATIBLE_SIZE, 'compatible');
  if (compatible !== LUO_COMPATIBLE) throw header.bad(`it is '${compatible}', expected '${LUO_COMPATIBLE}'`);
  return {
    liveupdateNumber: header.u64(NUMBER_AT),
    sessions: header.pointer(SESSIONS_AT, 'sessions_pa'),
    flbs: header.pointer(FLBS_AT, 'flbs_pa'),
  };
}

/** A preserved file; what its handler wrote too, if that is a memfd. */
export interface LuoReadFile extends LuoFile {
  readonly memfd?: Memfd;
}

/** Everything that a LUO blob leads to. */
export interface Luo {
  readonly liveupdateNumber: bigint;
  readonly sessions: readonly {
    readonly name: string;
    readonly files: readonly LuoReadFile[];
    /** The blocks that list its files. */
    readonly blocks: readonly PhysicalAddress[];
  }[];
  /** The blocks that list the sessions. */
  readonly sessionBlocks: readonly PhysicalAddress[];
  readonly flbs: readonly LuoFlb[];
  readonly flbPage: PhysicalAddress | undefined;
}

/**
 * Reads it all: the blob at `address`, sessions, files, memfds and FLBs. KHO_EIMAGE names the first thing that is wrong;
 * {@link readLuoHeader}, readLuoSessions(), readLuoFlbs() and readMemfd() read what else there is.
 */
export function readLuo(memory: ReadableMemory, address: PhysicalAddress, size: number): Luo {
  const untrusted = UntrustedMemory.of(memory);
  const header = readLuoHeader(untrusted, address, size);
  const { sessions, blocks } = readLuoSessions(untrusted, header.sessions);
  return {
    liveupdateNumber: header.liveupdateNumber,
    sessions: sessions.map((session) => ({
      ...session,
      files: session.files.map((file) => withMemfd(untrusted, session.name, file)),
    })),
    sessionBlocks: blocks,
    flbs: header.flbs === undefined ? [] : readLuoFlbs(untrusted, header.flbs),
    flbPage: header.flbs,
  };
}

function withMemfd(memory: ReadableMemory, session: string, file: LuoFile): LuoReadFile {
  if (file.compatible !== MEMFD_LUO_COMPATIBLE) return file;
  const where = `token ${file.token} of session '${session}'`;
  if (file.data === 0n || file.data % BigInt(PAGE_SIZE) !== 0n || file.data >= BigInt(PHYS_ADDR_MAX)) {
    throw new KhoError(
      'KHO_EIMAGE',
      `${where}: data is 0x${file.data.toString(16)}, which is not the address of a page`,
    );
  }
  try {
    return { ...file, memfd: readMemfd(memory, physicalAddress(Number(file.data))) };
  } catch (cause) {
    if (!(cause instanceof KhoError)) throw cause;
    throw new KhoError(cause.code, `${where}: ${cause.message}`, cause.details, { cause });
  }
}
