import { execFileSync, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import {
  encodeKhoBlockHeaders,
  encodeKhoVmalloc,
  encodeKhoVmallocChunks,
  encodeLuo,
  encodeLuoFile,
  encodeLuoFlbs,
  encodeLuoSession,
  encodeMemfd,
  encodeMemfdFolios,
} from '#dist/abi/index.js';
import { physicalAddress } from '#dist/memblock/index.js';
import { temporaryDirectory } from '../support/run.js';

const compiler = spawnSync('cc', ['--version']).error === undefined;
if (!compiler && process.env.CI !== 'true') console.warn('SKIPPED, because cc is not installed: layouts');

/** The numbers are those of layouts.c, in its order. */
const OURS = {
  'struct kho_vmalloc': encodeKhoVmalloc({
    first: physicalAddress(0x123456789000),
    totalPages: 0x89abcdef,
    flags: 3,
    order: 9,
  }),
  // Two chunks, since 512 pieces do not fit into one; the first pieces are those of layouts.c.
  'struct kho_vmalloc_chunk': chunkOf(0x1000, 0x23456789a000),
  'struct kho_block_header_ser':
    encodeKhoBlockHeaders([0x1000, 0xfedcba987000].map(physicalAddress), 2040, 3)[0] ?? new Uint8Array(),
  'struct luo_ser': encodeLuo({
    liveupdateNumber: 0x8877665544332211n,
    sessions: physicalAddress(0x2000),
    flbs: physicalAddress(0x3000),
  }),
  'struct luo_session_ser': encodeLuoSession({ name: 's'.repeat(63), files: physicalAddress(0x4000), count: 65 }),
  'struct luo_file_ser': encodeLuoFile({ compatible: 'memfd-v2', data: 0x5000n, token: 0xffeeddccbbaa9988n }),
  'struct luo_flb_header_ser and luo_flb_ser': encodeLuoFlbs([
    { compatible: 'a', data: 0xfeedf00dcafebee0n, count: 3n },
    { compatible: 'b'.repeat(47), data: 2n, count: 4n },
  ]),
  'struct memfd_luo_ser': encodeMemfd({
    pos: 0x0102030405060708n,
    size: 0x112233445566,
    seals: 0x3f,
    folioCount: 7,
    folios: { first: physicalAddress(0x6000), totalPages: 1, flags: 1, order: 0 },
  }),
  'struct memfd_luo_folio_ser': encodeMemfdFolios([
    { address: physicalAddress(0x123456789a000), flags: 3, index: 0xabcdef01 },
  ]),
};

/** The first of two chunks, whose list is cut after its first two pieces as if it ended there. */
function chunkOf(first: number, second: number): Uint8Array {
  const pieces = [first, second, ...Array.from({ length: 510 }, (_, n) => (n + 1) * 4096)].map(physicalAddress);
  const [chunk] = encodeKhoVmallocChunks([0x6000, 0x7000].map(physicalAddress), pieces);
  return (chunk ?? new Uint8Array()).fill(0, 8 + 16);
}

test.skipIf(!compiler && process.env.CI !== 'true')('a C compiler lays the structures out as we do', () => {
  const program = join(temporaryDirectory(), 'layouts');
  execFileSync('cc', ['-Wall', '-Werror', '-o', program, fileURLToPath(new URL('layouts.c', import.meta.url))]);
  const theirs = execFileSync(program);
  let at = 0;
  for (const [name, bytes] of Object.entries(OURS)) {
    const differs = bytes.findIndex((byte, index) => byte !== theirs[at + index]);
    expect({ name, differs }).toEqual({ name, differs: -1 });
    at += bytes.length;
  }
  expect(at).toBe(theirs.length);
});
