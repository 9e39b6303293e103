import { createHash } from 'node:crypto';
import { closeSync, copyFileSync, openSync, readSync } from 'node:fs';
import { expect } from 'vitest';
import type { ImageReport } from '#dist/inspect/index.js';
import { bootsOf, guestReport, type SizeAndDigest, troubleOn } from './support/guest-console.js';
import { kernelTest } from './support/kernel-test.js';
import { khorus } from './support/khorus.js';
import { contentOf, encodeSessionName, memfdContent } from './support/memfd-order.js';
import { BIT_OF_EVERYTHING, depart, type Predecessor } from './support/predecessor.js';
import { AT_THE_JUMP } from './support/tiny-kernel.js';

const LARGE_FOLIOS: Predecessor = { ...BIT_OF_EVERYTHING, folios: 'large' };

function sizeAndDigest(bytes: Uint8Array): SizeAndDigest {
  return { size: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') };
}

/** What was put into a handover, as a guest reports it. */
function putIn({ reserveMem, memfds }: Predecessor) {
  return {
    reserveMem: new Map(reserveMem.map(({ name, size }, index) => [name, sizeAndDigest(contentOf(index + 1, size))])),
    memfds: new Map(
      memfds.map((order) => [`${encodeSessionName(order.session)}/${order.token}`, sizeAndDigest(memfdContent(order))]),
    ),
  };
}

for (const [what, predecessor] of Object.entries({ small: BIT_OF_EVERYTHING, large: LARGE_FOLIOS })) {
  kernelTest(
    `a kernel that kexecs into itself finds areas, test folios, sessions and memfds of ${what} folios`,
    async (context) => {
      const { end, ramFile } = await depart(context, predecessor, 'linux');
      const [before, after] = bootsOf(end.console);
      expect([troubleOn(before), troubleOn(after)]).toEqual([[], []]);
      expect(end.status).toBe(0);
      expect(after).toContain('KHO: found kexec handover data.');
      for (const { name } of predecessor.reserveMem) {
        expect(after).toContain(`Revived memory reservation '${name}' from KHO`);
      }
      expect(after).toContain(`KHO: exec from: ${context.kernel.version.split('-')[0]} (count 1)`);
      expect(after).toContain('test_kho: KHO restore succeeded');

      const report = guestReport(after);
      expect(report).toMatchObject({ done: true, errors: [] });
      expect({ reserveMem: report.reserveMem, memfds: report.memfds }).toEqual(putIn(predecessor));
      for (const { session, token, position = 0, seals = 0 } of predecessor.memfds) {
        const attributes = report.memfdAttributes.get(`${encodeSessionName(session)}/${token}`);
        expect(attributes).toEqual(expect.arrayContaining([`pos=${position}`, `seals=${seals}`]));
      }
      // 3 MiB in two folios of 2 MiB are 8192 blocks of 512 bytes; in pages, 6144.
      expect(report.memfdAttributes.get('vm%200/0')).toContain(what === 'large' ? 'blocks=8192' : 'blocks=6144');
      const { address = 0, size = 0 } = report.kernelImage ?? {};
      expect(report.scratch.some((area) => address >= area.address && address + size <= area.address + area.size)).toBe(
        true,
      );

      // The RAM file is from after the boot: much of the handover is gone. That is told, and nothing breaks.
      const { status, stdout, stderr } = await khorus(['inspect', ramFile, '--json']);
      expect([status, stderr]).toEqual([1, '']);
      const seen: ImageReport = JSON.parse(stdout);
      expect(seen.reused).toBe(true);
      expect(seen.findings.map(({ severity }) => severity)).toContain('error');
      const afterBoot = 'this memory may have been taken after the next kernel booted';
      expect(seen.findings).toContainEqual(
        expect.objectContaining({
          severity: 'warning',
          code: 'KHO_EIMAGE',
          message: expect.stringContaining(afterBoot),
        }),
      );
    },
  );
}

kernelTest(
  'what inspect reads in the RAM of a kernel at the jump is what its debugfs shows, and what was put in',
  async (context) => {
    const { end, ramFile } = await depart(context, BIT_OF_EVERYTHING, 'the-jump');
    expect(troubleOn(end.console)).toEqual([]);
    expect(end.status).toBe(AT_THE_JUMP);
    const report = guestReport(end.console);
    expect(report).toMatchObject({ done: true, errors: [] });
    if (process.env.KHORUS_KEEP_RAM) copyFileSync(ramFile, process.env.KHORUS_KEEP_RAM);

    const { status, stdout, stderr } = await khorus(['inspect', ramFile, '--json']);
    expect([status, stderr]).toEqual([0, '']);
    const seen: ImageReport = JSON.parse(stdout);
    expect(seen).toMatchObject({ findings: [], otherRecords: [], reused: false });
    expect(seen.unclaimed.objects).toBe(0);

    // debugfs: scratch, the root FDT as far as the file goes, the sub-blobs.
    expect(seen.scratch?.areas).toEqual(report.scratch);
    const at = (address: number, size: number) => bytesAt(ramFile, address, size);
    const root = report.dumps.get('out/fdt') ?? new Uint8Array();
    expect(root.length).toBeGreaterThan(200);
    expect(at(seen.root?.address ?? 0, root.length).equals(root)).toBe(true);
    const blobs = new Map(seen.subtrees.map(({ name, address, size }) => [`out/sub_fdts/${name}`, at(address, size)]));
    expect([...blobs.keys()].sort()).toEqual([...report.dumps.keys()].filter((name) => name !== 'out/fdt').sort());
    for (const [name, bytes] of blobs) {
      const dump = report.dumps.get(name);
      // The address of the sessions at 16 is filled in by the kexec.
      if (name.endsWith('/LUO')) bytes.fill(0, 16, 24);
      expect(bytes).toEqual(dump);
    }

    const { reserveMem, memfds } = putIn(BIT_OF_EVERYTHING);
    const areas = seen.reservations?.map(({ name, size, sha256 }) => [name, { size, sha256 }] as const);
    expect(new Map(areas)).toEqual(reserveMem);
    const files = seen.luo?.sessions.flatMap(({ name, files }) =>
      files.map(({ token, memfd }) => {
        return [`${encodeSessionName(name)}/${token}`, { size: memfd?.size, sha256: memfd?.sha256 }] as const;
      }),
    );
    expect(new Map(files)).toEqual(memfds);
    expect(seen.khoTest).toMatchObject({ verified: true, bytes: 8 * 2 ** 20 });
    expect(seen.metadata).toEqual({ previousRelease: context.kernel.version.split('-')[0], kexecCount: 1 });
  },
);

/** Of a RAM file of a machine without a hole below 4 GiB. */
function bytesAt(file: string, address: number, size: number): Buffer {
  const descriptor = openSync(file, 'r');
  try {
    const bytes = Buffer.alloc(size);
    expect(readSync(descriptor, bytes, 0, size, address)).toBe(size);
    return bytes;
  } finally {
    closeSync(descriptor);
  }
}
