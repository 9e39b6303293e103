import {
  closeSync,
  cpSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RangeRecord, RunRecord } from 'khorus';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { khorus, SMALL_SCENARIO } from '../support/run.js';

const PAGE_SIZE = 4096;
let base = '';
let out = '';
let record: RunRecord;

beforeAll(async () => {
  base = mkdtempSync(join(tmpdir(), 'khorus-verify-'));
  out = join(base, 'out');
  writeFileSync(join(base, 'small.yaml'), SMALL_SCENARIO);
  const result = await khorus(['run', join(base, 'small.yaml'), '--quiet', '--out', out]);
  expect([result.code, result.stderr]).toEqual([0, '']);
  record = JSON.parse(readFileSync(join(out, 'run.json'), 'utf8'));
});
afterAll(() => rmSync(base, { recursive: true, force: true }));

/** Runs `check` while the byte at a physical address has another value. */
async function withDamage(address: number, check: () => Promise<void>, mask = 0x01): Promise<void> {
  const file = openSync(join(out, 'ram.img'), 'r+');
  const byte = new Uint8Array(1);
  readSync(file, byte, 0, 1, address);
  try {
    writeSync(file, Uint8Array.of((byte[0] ?? 0) ^ mask), 0, 1, address);
    await check();
  } finally {
    writeSync(file, byte, 0, 1, address);
    closeSync(file);
  }
}

const hex = (address: number) => `0x${address.toString(16)}`;

test('one changed byte in a preserved page of any driver is reported with address, driver and instance', async () => {
  const owners = new Map<string, RangeRecord>();
  for (const range of record.ranges) if (range.owner.kind === 'pages') owners.set(range.owner.name, range);
  expect([...owners.keys()].sort()).toEqual(['ftrace', 'iommu', 'kvm-vcpu', 'memfd']);
  for (const [driver, range] of owners) {
    const page = range.address + (2 ** range.order - 1) * PAGE_SIZE;
    await withDamage(page + 77, async () => {
      const { code, stderr } = await khorus(['verify', out]);
      expect(code).toBe(1);
      expect(stderr).toContain(hex(page));
      expect(stderr).toContain(`driver ${driver}, instance ${range.owner.instance}`);
    });
  }
});

test("one changed byte in a driver's FDT names the driver and the instance whose node it is", async () => {
  const instance = record.instances.find(({ name }) => name === 'netdevsim3');
  const blob = record.drivers.find(({ name }) => name === 'netdevsim')?.blob.address ?? 0;
  await withDamage(blob + (instance?.blobOffset ?? 0) + 40, async () => {
    const { code, stderr } = await khorus(['verify', out, '--json']).then((r) => ({ ...r, stderr: r.stdout }));
    expect(code).toBe(1);
    const { failures } = JSON.parse(stderr);
    expect(failures[0]).toMatchObject({ code: 'KHO_EDIGEST', driver: 'netdevsim' });
    expect(failures[0].instance).toContain('netdevsim3');
  });
});

test('a damaged magic, compatible string or tracker entry is named, and nothing is restored', async () => {
  const { address } = record.root;
  const blob = readFileSync(join(out, 'kho/out/fdt'));
  const compatible = blob.indexOf('kho-v4');
  const cases: [string, number, RegExp][] = [
    ['magic', address, /magic/i],
    ['compatible', address + compatible, /incompatible/],
  ];
  const tracker = record.tracker.map((page) => page.address);
  const root = tracker[0] ?? 0;
  const file = openSync(join(out, 'ram.img'), 'r');
  const page = new Uint8Array(PAGE_SIZE);
  readSync(file, page, 0, PAGE_SIZE, root);
  closeSync(file);
  const used = page.findIndex((byte) => byte !== 0);
  cases.push(['entry of the tracker', root + used, /tracker/]);
  for (const [what, at, message] of cases) {
    await withDamage(at, async () => {
      for (const hidden of [false, true]) {
        if (hidden) renameSync(join(out, 'run.json'), join(base, 'run.json'));
        try {
          const { code, stderr, stdout } = await khorus(['verify', out]);
          expect([what, hidden, code, stdout]).toEqual([what, hidden, 1, '']);
          expect(stderr).toMatch(message);
          expect(stderr).toContain('nothing was restored');
        } finally {
          if (hidden) renameSync(join(base, 'run.json'), join(out, 'run.json'));
        }
      }
    });
  }
});

test('every single byte of an entry of the tracker may be damaged: it is always seen', async () => {
  const tracker = record.tracker.map((page) => page.address);
  for (const [number, table] of tracker.entries()) {
    if (number % 9 !== 0) continue;
    await withDamage(table + 8 * (number % 512), async () => {
      const { code, stderr } = await khorus(['verify', out]);
      expect(code).toBe(1);
      expect(stderr).toContain(`tracker's page at ${hex(table)}`);
      expect(stderr).toContain('nothing was restored');
    });
  }
});

test('without run.json the digests are left out, and verify says so', async () => {
  const moved = join(base, 'without');
  cpSync(join(out, 'kho'), join(moved, 'kho'), { recursive: true });
  renameSync(join(out, 'ram.img'), join(moved, 'ram.img'));
  try {
    const { code, stdout, stderr } = await khorus(['verify', moved]);
    expect(stderr).toContain('run.json is not there: digests of memory and of states were not compared');
    expect(stdout).toContain('no digests compared');
    expect(code).toBe(0);
  } finally {
    renameSync(join(moved, 'ram.img'), join(out, 'ram.img'));
  }
});

test('a directory without an image, and a file that is none, are clear errors', async () => {
  expect((await khorus(['verify', base])).code).not.toBe(0);
  const file = join(base, 'noise');
  writeFileSync(file, new Uint8Array(65536).fill(0x5a));
  const { code, stderr } = await khorus(['inspect', file]);
  expect(code).toBe(1);
  expect(stderr).toContain('no boot record');
});
