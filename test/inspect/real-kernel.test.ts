import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { MEMFD_SEALS } from '#dist/abi/index.js';
import { architectureNamed } from '#dist/arch/index.js';
import { type ImageReport, inspectPath } from '#dist/inspect/index.js';
import { ImageMemory, physicalAddress } from '#dist/memblock/index.js';
import { bootEarly } from '#dist/successor/early-boot.js';
import { BIT_OF_EVERYTHING } from '../kernel/support/predecessor.js';

// A handover that Linux made, without contents: test/golden/kernel/README.md.
const GOLDEN = new URL('../golden/kernel/linux-7.2.13.core.gz', import.meta.url);
const directory = mkdtempSync(join(tmpdir(), 'khorus-golden-'));
const core = join(directory, 'handover.core');
let seen: ImageReport;
beforeAll(async () => {
  writeFileSync(core, gunzipSync(readFileSync(GOLDEN)));
  const report = await inspectPath(core);
  if (report.kind !== 'image') throw new Error(`a core was read as ${report.kind}`);
  seen = report;
});
afterAll(() => rmSync(directory, { recursive: true }));

test('nothing is wrong with the handover of a real kernel, and every preserved object has an owner', () => {
  expect(seen.findings).toEqual([]);
  expect(seen.unclaimed.objects).toBe(0);
  expect(seen.root).toMatchObject({ compatible: 'kho-v4' });
  expect(seen.metadata).toEqual({ previousRelease: '7.2.13', kexecCount: 1 });
  expect(seen.subtrees.map(({ name }) => name).sort()).toEqual(['LUO', 'kexec-metadata', 'kho_test', 'memblock']);
});

test('sessions, memfds and areas of a real kernel are those that were put in', () => {
  const { memfds, reserveMem } = BIT_OF_EVERYTHING;
  expect(seen.reservations?.map(({ name, size }) => ({ name, size }))).toEqual(reserveMem);
  const read = seen.luo?.sessions.flatMap(({ name, files }) =>
    files.map(({ token, memfd }) => [name, token, memfd?.size, memfd?.pos, memfd?.seals]),
  );
  const put = memfds.map(({ session, token, size, position = 0, seals = 0 }) => {
    const names = Object.entries(MEMFD_SEALS).flatMap(([name, bit]) => ((seals & bit) === 0 ? [] : [name]));
    return [session, `${token}`, size, `${position}`, names];
  });
  expect(read).toEqual(put);
  // The kernel fills holes when it preserves a file.
  expect(seen.luo?.sessions.flatMap(({ files }) => files.map(({ memfd }) => memfd?.holeBytes))).toEqual([0, 0, 0, 0]);
  expect(seen.luo?.flbs.map(({ count }) => count)).toEqual([4, 4, 4]);
  expect(seen.khoTest?.bytes).toBe(8 * 2 ** 20);
});

test('our own successor boots early from what a real kernel left: tracker, scratch, areas', () => {
  const memory = ImageMemory.open(core);
  try {
    const { handover, scratch, preserved, memblock } = bootEarly(memory, architectureNamed('x86_64'), 1);
    expect(handover).toMatchObject({ form: 'sub-blobs', root: { subtrees: { length: 4 } } });
    expect(scratch).toHaveLength(3);
    expect(preserved.count).toBe(seen.tracker?.objects);
    for (const { address, size } of seen.reservations ?? []) {
      expect(memblock.isRegionReserved(physicalAddress(address), size)).toBe(true);
    }
  } finally {
    memory.close();
  }
});
