import { createHash } from 'node:crypto';
import { expect } from 'vitest';
import { bootsOf, guestReport, type SizeAndDigest, troubleOn } from './support/guest-console.js';
import { kernelTest } from './support/kernel-test.js';
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
      const { end } = await depart(context, predecessor, 'linux');
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
    },
  );
}

kernelTest('at the jump a kernel leaves its whole handover in RAM', async (context) => {
  const { end } = await depart(context, LARGE_FOLIOS, 'the-jump');
  expect(troubleOn(end.console)).toEqual([]);
  expect(end.status).toBe(AT_THE_JUMP);
  expect(guestReport(end.console)).toMatchObject({ done: true, errors: [] });
});
