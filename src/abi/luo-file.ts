import type { PhysicalAddress } from '../memblock/index.js';
import { readKhoBlocks } from './kho-block.js';
import { type ReadableMemory, type Structure, writeText } from './structure.js';

/**
 * A preserved file of LUO (Linux 7.2, include/linux/kho/abi/luo.h and luo_file.c): an entry of a chain of KHO blocks,
 * 63 in each.
 *
 * ```text
 *    0 char compatible[48]   the handler in the next kernel: "memfd-v2"
 *   48 u64 data              opaque to LUO; for a memfd the address of its memfd_luo_ser
 *   56 u64 token             the user's name for the file in its session
 * ```
 */
export interface LuoFile {
  /** 1 to 47 bytes. */
  readonly compatible: string;
  readonly data: bigint;
  readonly token: bigint;
}

const COMPATIBLE_AT = 0;
/** Bytes of a handler's name with its NUL. */
export const LUO_FILE_COMPATIBLE_SIZE = 48;
const DATA_AT = COMPATIBLE_AT + LUO_FILE_COMPATIBLE_SIZE;
const TOKEN_AT = DATA_AT + 8;
export const LUO_FILE_SIZE = TOKEN_AT + 8;

/** KHO_EINVAL for a name that does not fit. */
export function encodeLuoFile({ compatible, data, token }: LuoFile): Uint8Array {
  const bytes = new Uint8Array(LUO_FILE_SIZE);
  writeText(bytes, COMPATIBLE_AT, LUO_FILE_COMPATIBLE_SIZE, 'compatible of a file', compatible);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(DATA_AT, data, true);
  view.setBigUint64(TOKEN_AT, token, true);
  return bytes;
}

/** An entry of a block of files. KHO_EIMAGE for a name without an end. */
export function decodeLuoFile(entry: Structure): LuoFile {
  const compatible = entry.text(COMPATIBLE_AT, LUO_FILE_COMPATIBLE_SIZE, 'compatible');
  return { compatible, data: entry.u64(DATA_AT), token: entry.u64(TOKEN_AT) };
}

/** The files of a session, and the blocks that list them. */
export interface LuoFiles {
  readonly files: readonly LuoFile[];
  readonly blocks: readonly PhysicalAddress[];
}

/**
 * Reads the files from `head` on; no head is no files. KHO_EIMAGE for a damaged chain, a name without an end, and a token
 * that is there twice.
 */
export function readLuoFiles(memory: ReadableMemory, head: PhysicalAddress | undefined): LuoFiles {
  const { blocks, entries } = readKhoBlocks(memory, head, LUO_FILE_SIZE, 'file');
  const tokens = new Set<bigint>();
  const files = entries.map((entry) => {
    const file = decodeLuoFile(entry);
    if (tokens.has(file.token)) throw entry.bad(`there is a file with token ${file.token} already`);
    tokens.add(file.token);
    return file;
  });
  return { files, blocks };
}
