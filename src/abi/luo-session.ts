import type { PhysicalAddress } from '../memblock/index.js';
import { readKhoBlocks } from './kho-block.js';
import { type LuoFile, readLuoFiles } from './luo-file.js';
import { type ReadableMemory, type Structure, UntrustedMemory, writeText } from './structure.js';

/**
 * A session of LUO with its set of files (Linux 7.2, include/linux/kho/abi/luo.h and luo_session.c): an entry of a chain
 * of KHO blocks, 51 in each.
 *
 * ```text
 *    0 char name[64]   unique
 *   64 u64 files ────▶ first block of files, 0 without files
 *   72 u64 count       files in all blocks
 * ```
 */
export interface LuoSessionEntry {
  /** 1 to 63 bytes. */
  readonly name: string;
  /** The first block of files. */
  readonly files: PhysicalAddress | undefined;
  readonly count: number;
}

const NAME_AT = 0;
/** Bytes of a session's name with its NUL (LIVEUPDATE_SESSION_NAME_LENGTH). */
export const LUO_SESSION_NAME_SIZE = 64;
const FILES_AT = NAME_AT + LUO_SESSION_NAME_SIZE;
const COUNT_AT = FILES_AT + 8;
export const LUO_SESSION_SIZE = COUNT_AT + 8;

/** KHO_EINVAL for a name that does not fit. */
export function encodeLuoSession({ name, files, count }: LuoSessionEntry): Uint8Array {
  const bytes = new Uint8Array(LUO_SESSION_SIZE);
  writeText(bytes, NAME_AT, LUO_SESSION_NAME_SIZE, 'name of a session', name);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(FILES_AT, BigInt(files ?? 0), true);
  view.setBigUint64(COUNT_AT, BigInt(count), true);
  return bytes;
}

/** An entry of a block of sessions. KHO_EIMAGE for a name without an end and a pointer that is none. */
export function decodeLuoSession(entry: Structure): Omit<LuoSessionEntry, 'count'> & { readonly count: bigint } {
  const name = entry.text(NAME_AT, LUO_SESSION_NAME_SIZE, 'name');
  return { name, files: entry.pointer(FILES_AT, `files of '${name}'`), count: entry.u64(COUNT_AT) };
}

/** A session as it is found in memory. */
export interface LuoSession {
  readonly name: string;
  readonly files: readonly LuoFile[];
  /** The blocks that list its files. */
  readonly blocks: readonly PhysicalAddress[];
}

/** All sessions, and the blocks that list them. */
export interface LuoSessions {
  readonly sessions: readonly LuoSession[];
  readonly blocks: readonly PhysicalAddress[];
}

/**
 * Reads the sessions from `head` on; no head is no sessions. KHO_EIMAGE for a damaged chain, a name without an end or that
 * is there twice (Linux refuses all sessions then), a session's damaged files, and a count that is not theirs.
 */
export function readLuoSessions(memory: ReadableMemory, head: PhysicalAddress | undefined): LuoSessions {
  const untrusted = UntrustedMemory.of(memory);
  const { blocks, entries } = readKhoBlocks(untrusted, head, LUO_SESSION_SIZE, 'session');
  const names = new Set<string>();
  const sessions = entries.map((entry) => {
    const { name, files: head, count } = decodeLuoSession(entry);
    if (names.has(name)) throw entry.bad(`there is a session '${name}' already`);
    names.add(name);
    const { files, blocks: fileBlocks } = readLuoFiles(untrusted, head);
    if (count !== BigInt(files.length)) {
      throw entry.bad(`count of '${name}' is ${count}, and there are ${files.length} files`);
    }
    return { name, files, blocks: fileBlocks };
  });
  return { sessions, blocks };
}
