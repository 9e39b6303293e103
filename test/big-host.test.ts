import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RunRecord } from 'khorus';
import { expect, test } from 'vitest';
import { khorus, ROOT, temporaryDirectory } from './support/run.js';

const MIB = 2 ** 20;
const TIB = 2 ** 40;
const LIMIT = 300_000;

/** Runs the command; returns what it printed, and the peak RSS of each of its processes in bytes. */
async function measured(args: readonly string[]) {
  const file = join(temporaryDirectory(), 'peaks');
  const env = { NODE_OPTIONS: `--import ${join(ROOT, 'test/support/peak-rss.mjs')}`, KHORUS_TEST_PEAKS: file };
  const result = await khorus(args, { env });
  const peaks = new Map<string, number>();
  for (const line of readFileSync(file, 'utf8').trim().split('\n')) {
    const [pid, kib] = line.split(' ');
    peaks.set(pid, Math.max(peaks.get(pid) ?? 0, Number(kib) * 1024));
  }
  return { ...result, peaks: [...peaks.values()] };
}

test(
  'a host of 1.5 TiB with 1.4 TiB of guest memory is handed over, restored and verified in less than 1 GiB of RSS',
  async () => {
    const out = join(temporaryDirectory(), 'out');
    const run = await measured(['run', 'scenarios/big-host.yaml', '--out', out, '--json']);
    expect(run.stderr).toBe('');
    expect(run.code).toBe(0);
    const summary = JSON.parse(run.stdout);
    expect(summary).toMatchObject({ outcome: 'handed-over', instances: { total: 78, restored: 78 }, failures: [] });
    const guests = (4 * 256 + 2 * 128 + 12 * 12) * 2 ** 30;
    expect(summary.unverifiableBytes).toBe(guests);

    const record: RunRecord = JSON.parse(readFileSync(join(out, 'run.json'), 'utf8'));
    const unbacked = record.host.ranges.filter(({ backed }) => backed === false);
    expect(unbacked.map(({ nid }) => nid)).toEqual([0, 1, 2, 3]);
    expect(unbacked.reduce((sum, { size }) => sum + size, 0)).toBe(1.4 * TIB - ((1.4 * TIB) % (2 * MIB)));
    // 1 GiB of a folio at 1 GiB, and no digest of what has no content.
    for (const { address, order, owner } of record.unbacked ?? []) {
      expect(address % (4096 * 2 ** order)).toBe(0);
      expect(owner).toMatchObject({ kind: 'guest', name: 'guest-memory' });
    }
    expect(new Set(record.unbacked?.map(({ order }) => order))).toEqual(new Set([9, 18]));
    const isUnbacked = (at: number) => unbacked.some(({ base, size }) => at >= base && at < base + size);
    expect(record.ranges.filter(({ address }) => isUnbacked(address))).toEqual([]);
    expect(record.ranges.every(({ sha256 }) => sha256.length === 64)).toBe(true);

    const { size, blocks } = statSync(join(out, 'ram.img'));
    expect(size).toBeGreaterThan(1.5 * TIB - 1);
    expect(blocks * 512).toBeLessThan(64 * MIB);

    const verify = await measured(['verify', out, '--json']);
    expect(verify.stderr).toBe('');
    expect(JSON.parse(verify.stdout)).toMatchObject({ verified: true, failures: [], unverifiableBytes: guests });
    for (const peaks of [run.peaks, verify.peaks]) {
      expect(peaks.length).toBeGreaterThanOrEqual(2); // the command, and the successor
      for (const peak of peaks) expect(peak).toBeLessThan(1024 * MIB);
    }
  },
  LIMIT,
);

test(
  'guest memory is not counted as verified, and a guest that the host has no memory for is refused by name',
  async () => {
    const directory = temporaryDirectory();
    const out = join(directory, 'out');
    const scenario = (guest: string) => `host:
  memory: 40G
  nodes: 2
  guestMemory: 32G
  cmdline: "kho=on kho_scratch=64M,1G,64M"
drivers:
  - { use: guest-memory, options: { size: ${guest}, pageSize: 1G } }
  - { use: guest-memory, options: { size: 3G, pageSize: 2M } }
`;
    writeFileSync(join(directory, 'fits.yaml'), scenario('20G')); // more than one node has
    const run = await khorus(['run', join(directory, 'fits.yaml'), '--out', out]);
    expect(run.stderr).toBe('');
    expect(run.stdout).toContain('not verifiable: 23 GiB of guest memory');
    const verify = await khorus(['verify', out]);
    expect(verify.stdout).toContain('not verifiable: 1,556 preserved objects of guest memory (23 GiB) without content');
    expect(verify.stdout).toMatch(
      /verified: 2 instances restored, \d+ preserved objects \(\d+ KiB\), all digests equal/,
    );
    const inspect = await khorus(['inspect', out]);
    expect(inspect.stdout).toContain('guest memory of guest-memory');
    expect(inspect.code).toBe(0);

    writeFileSync(join(directory, 'large.yaml'), scenario('30G'));
    const refused = await khorus(['run', join(directory, 'large.yaml'), '--json']);
    expect(refused.code).toBe(1);
    const { error } = JSON.parse(refused.stdout);
    expect(error).toMatchObject({
      code: 'KHO_ENOMEM',
      details: { driver: 'guest-memory', instance: 'guest-memory1', shard: 0 },
    });
    expect(error.message).toContain('of unbacked memory cannot be had');
  },
  LIMIT,
);
