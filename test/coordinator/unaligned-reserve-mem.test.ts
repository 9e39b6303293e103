import { join } from 'node:path';
import { Coordinator, Host, restoreImage } from 'khorus';
import { expect, test } from 'vitest';
import { temporaryDirectory } from '../support/run.js';

test('an area of reserve_mem that is not aligned to pages is preserved from its first page on, and revived', async () => {
  const image = join(temporaryDirectory(), 'ram.img');
  const host = new Host({
    arch: 'x86_64',
    memory: 128 * 2 ** 20,
    nodes: 1,
    cmdline: 'kho=on kho_scratch=8M,16M,8M reserve_mem=9000:64:odd',
    cpus: 2,
    release: '7.2.0-test',
  });
  const [{ address = 0 } = {}] = host.reserveMem;
  expect(address % 4096).not.toBe(0);
  await using coordinator = new Coordinator(host, { mode: 'hash', workers: 1, seed: 1, profile: 'kho-v4' });
  using handover = await coordinator.handover();
  await handover.writeImage(image);
  const ranges = handover.record().ranges.filter(({ owner }) => owner.kind === 'reserve_mem');
  const first = address - (address % 4096);
  expect(ranges.reduce((sum, { order }) => sum + 2 ** order, 0)).toBe(2);
  expect(Math.min(...ranges.map((range) => range.address))).toBe(first);
  const report = await restoreImage({ image, arch: 'x86_64', drivers: [] });
  expect([report.failures, report.unclaimed]).toEqual([[], []]);
  expect(report.revived).toEqual([{ name: 'odd', address, size: 9000 }]);
});
