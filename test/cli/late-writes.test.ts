import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { khorus, temporaryDirectory } from '../support/run.js';

/** A device that writes to its second page while the driver serializes: too late, and always at the same point. */
const DRIVER = `
export default {
  name: 'nic', compatible: 'nic-v1', hosted: true,
  shards: () => [{ pages: 2 }],
  create: () => ({}),
  prepare(ctx) {
    const ring = ctx.alloc(2);
    ctx.preserve(ring);
    ctx.state.dma = ctx.dma(ring);
    return ring;
  },
  serialize(ctx) {
    ctx.root.u64('ring', ctx.prepared.address);
    ctx.state.dma.fill(4096 + 200, 4, 7);
  },
  restore(ctx) { ctx.claim({ address: Number(ctx.node.property('ring').u64('little')), pages: 2 }); return {}; },
  snapshot: () => 0,
};
`;

function scenario(more = ''): { file: string; out: string } {
  const directory = temporaryDirectory();
  writeFileSync(join(directory, 'nic.mjs'), DRIVER);
  const file = join(directory, 'host.yaml');
  writeFileSync(
    file,
    `host: { memory: 256M, cmdline: "kho=on kho_scratch=8M,16M,8M" }\n${more}drivers: [{ use: ./nic.mjs }]\n`,
  );
  return { file, out: join(directory, 'out') };
}

const FOUND = /^khorus: nic nic0 wrote to the page at 0x[0-9a-f]+000, at offset 0xc0, after it was frozen$/m;

test('a late write fails the run and says whose it was, where', async () => {
  const { file } = scenario();
  const { code, stdout, stderr } = await khorus(['run', file]);
  expect([code, stdout]).toEqual([1, '']);
  expect(stderr).toMatch(/nic nic0 wrote to the page at 0x[0-9a-f]+000, at offset 0xc0, after it was frozen/);
});

test('with report it is a warning, and stands in run.json', async () => {
  const { file, out } = scenario('lateWrites: report\n');
  const { code, stdout, stderr } = await khorus(['run', file, '--out', out]);
  expect(stderr).toMatch(FOUND);
  expect([code, stdout]).toEqual([0, expect.stringContaining('restored 1 of 1 drivers')]);
  const { lateWrites } = JSON.parse(readFileSync(join(out, 'run.json'), 'utf8'));
  expect(lateWrites).toMatchObject({ policy: 'report', found: [{ driver: 'nic', instance: 'nic0', offset: 192 }] });
  const json = await khorus(['run', file, '--json']);
  expect(JSON.parse(json.stdout)).toMatchObject({ outcome: 'handed-over', lateWrites: lateWrites.found });
});

test('switched off on the command line, over what the scenario says, nobody looks', async () => {
  const { file } = scenario('lateWrites: cancel\n');
  const { code, stderr } = await khorus(['run', file, '--late-writes', 'off']);
  expect([code, stderr]).toEqual([0, '']);
});

test('another policy is wrong usage', async () => {
  expect((await khorus(['run', scenario().file, '--late-writes', 'maybe'])).code).toBe(2);
  const { code, stderr } = await khorus(['run', scenario('lateWrites: maybe\n').file]);
  expect(code).not.toBe(0);
  expect(stderr).toContain("expected one of 'cancel', 'report', 'off'");
});
