import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RangeRecord, RunRecord, UnbackedRecord } from 'khorus';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { PROFILE_NAMES } from '#dist/abi/index.js';
import { khorus, temporaryDirectory } from '../support/run.js';

const MIB = 2 ** 20;
const SCENARIO = `
host: { memory: 1G, guestMemory: 64M, cmdline: "kho=on kho_scratch=16M,32M,16M reserve_mem=300K:4096:trace" }
drivers:
  - { use: guest-memory, options: { size: 4M, pageSize: 2M } }
  - { use: memfd, options: { size: 1M } }
`;
let out = '';
let text = '';

beforeAll(async () => {
  const base = mkdtempSync(join(tmpdir(), 'khorus-verify-'));
  out = join(base, 'out');
  writeFileSync(join(base, 'scenario.yaml'), SCENARIO);
  const result = await khorus(['run', join(base, 'scenario.yaml'), '--quiet', '--out', out]);
  expect([result.code, result.stderr]).toEqual([0, '']);
  text = readFileSync(join(out, 'run.json'), 'utf8');
});
afterAll(() => rmSync(join(out, '..'), { recursive: true, force: true }));

type Edited = Omit<RunRecord, 'ranges' | 'unbacked'> & {
  ranges: RangeRecord[];
  unbacked: { -readonly [Key in keyof UnbackedRecord]: UnbackedRecord[Key] }[];
};
const hex = (address: number) => `0x${address.toString(16)}`;

/** What verify says of the run when its run.json was edited; `edit` returns the address that it is to name. */
async function verifyEdited(edit: (record: Edited) => number) {
  const record: Edited = JSON.parse(text);
  const address = edit(record);
  writeFileSync(join(out, 'run.json'), JSON.stringify(record));
  try {
    return { address, ...(await khorus(['verify', out])) };
  } finally {
    writeFileSync(join(out, 'run.json'), text);
  }
}

test('a run is verified, and as many objects are counted as equal as there are digests', async () => {
  const record: RunRecord = JSON.parse(text);
  const { code, stdout, stderr } = await khorus(['verify', out]);
  expect([code, stderr]).toEqual([0, '']);
  const bytes = record.ranges.reduce((sum, { order }) => sum + 4096 * 2 ** order, 0);
  expect(stdout).toContain(`${record.ranges.length} preserved objects (${(bytes / MIB).toFixed(1)} MiB), all digests`);
  expect(stdout).toContain('not verifiable: 2 preserved objects of guest memory (4 MiB) without content');
  const json = JSON.parse((await khorus(['verify', out, '--json'])).stdout);
  expect(json).toMatchObject({ verified: true, failures: [], unverifiableBytes: 4 * MIB });
  expect(json.successor).not.toHaveProperty('preserved');
});

const edits: [string, (record: Edited) => number, string][] = [
  [
    'guest memory is cut out of run.json',
    (record) => {
      const { address } = record.unbacked[0];
      record.unbacked = [];
      return address;
    },
    'run.json does not have the 2 objects of order 9 from there that are preserved',
  ],
  [
    'guest memory is said to lie 2 MiB further',
    (record) => {
      record.unbacked[0].address += 2 * MIB;
      return record.unbacked[0].address + 2 * MIB; // the second of the two
    },
    'the object of order 9 in run.json is not preserved',
  ],
  [
    'guest memory is said to be more',
    (record) => {
      const [row] = record.unbacked;
      row.count += 2;
      return row.address + 4 * MIB;
    },
    'the 2 objects of order 9 from there in run.json are not preserved',
  ],
  [
    'guest memory is said to be smaller objects',
    (record) => {
      const [row] = record.unbacked;
      row.order--;
      row.count *= 2;
      return row.address;
    },
    'of order 8',
  ],
  [
    'guest memory is listed twice',
    (record) => {
      record.unbacked.push(record.unbacked[0]);
      return record.unbacked[0].address;
    },
    'in run.json',
  ],
  [
    'an object with a digest is cut out',
    (record) => record.ranges.pop()?.address ?? 0,
    'run.json does not have the object of order',
  ],
  [
    'an object with a digest is said to have none',
    (record) => {
      const { address, order, owner } = record.ranges.pop() as RangeRecord;
      record.unbacked.push({ address, order, owner, count: 1 });
      return address;
    },
    'has no digest, but lies in memory with bytes',
  ],
  [
    'guest memory is said to have a digest',
    (record) => {
      const [{ address, order }] = record.unbacked;
      record.ranges.push({ ...record.ranges[0], address, order });
      return address;
    },
    'has a digest, but lies in memory without bytes',
  ],
  [
    'guest memory is said to be beyond all bounds',
    (record) => {
      record.unbacked[0].count = 1e300;
      return record.unbacked[0].address;
    },
    'is no object',
  ],
];

test.each(edits)('verify fails, naming the address, if %s', async (_what, edit, message) => {
  const { address, code, stdout, stderr } = await verifyEdited(edit);
  expect([code, stdout]).toEqual([1, '']);
  expect(stderr).toContain(message);
  expect(stderr).toContain(`at ${hex(address)}`);
});

test.each(PROFILE_NAMES)(
  'what a run in the profile %s lists is what its successor finds',
  async (profile) => {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, 'scenario.yaml'), SCENARIO);
    const args = ['run', join(directory, 'scenario.yaml'), '--profile', profile, '--out', join(directory, 'out')];
    expect((await khorus(args)).stderr).toBe('');
    const { code, stdout, stderr } = await khorus(['verify', join(directory, 'out')]);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toContain('not verifiable: 2 preserved objects of guest memory (4 MiB)');
  },
  120_000,
);
