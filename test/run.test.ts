import { createHash } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, readSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RunRecord } from 'khorus';
import { joinSubFdts, readSubFdtLinks } from 'khorus/abi';
import { FdtReader, FdtTree } from 'khorus/fdt';
import { beforeAll, describe, expect, test } from 'vitest';
import { ImageMemory } from '#dist/memblock/index.js';
import { dtcAccepts, dumpLines, judgedTest, libfdtBuild, libfdtDump } from './fdt/libfdt.js';
import { khorus, ROOT } from './support/run.js';

const SCENARIO = join(ROOT, 'scenarios/host.yaml');
const VARIANTS: Record<string, readonly string[]> = {
  'hash-2': ['--mode', 'hash', '--workers', '2'],
  'hash-1': ['--mode', 'hash', '--workers', '1'],
  'hash-4': ['--mode', 'hash', '--workers', '4'],
  sequential: ['--mode', 'sequential'],
};
/** The state in FDTs of its own, a shard each: other bytes, but the same for every number of workers. */
const LINKED: Record<string, readonly string[]> = {
  'subfdt-2': ['--mode', 'subfdt', '--workers', '2'],
  'subfdt-1': ['--mode', 'subfdt', '--workers', '1'],
  'subfdt-4': ['--mode', 'subfdt', '--workers', '4'],
};

describe('scenarios/host.yaml, handed over in every way', () => {
  let base = '';
  const record = (name: string): RunRecord => JSON.parse(readFileSync(join(base, name, 'run.json'), 'utf8'));

  beforeAll(async () => {
    base = mkdtempSync(join(tmpdir(), 'khorus-run-'));
    for (const [name, args] of Object.entries({ ...VARIANTS, ...LINKED })) {
      const result = await khorus(['run', SCENARIO, '--seed', '7', '--quiet', '--out', join(base, name), ...args]);
      expect([name, result.code, result.stdout, result.stderr]).toEqual([name, 0, '', '']);
    }
    return () => rmSync(base, { recursive: true, force: true });
  }, 300_000);

  test('every variant writes the same bytes below kho/out and in ram.img', () => {
    const digests = Object.keys(VARIANTS).map((name) => digestOf(join(base, name)));
    expect(Object.keys(digests[0] ?? {}).length).toBeGreaterThan(8);
    for (const digest of digests.slice(1)) expect(digest).toEqual(digests[0]);
  });

  test('mode subfdt writes the same bytes for every number of workers', () => {
    const digests = Object.keys(LINKED).map((name) => digestOf(join(base, name)));
    expect(digests[0]).not.toEqual(digestOf(join(base, 'hash-2')));
    for (const digest of digests.slice(1)) expect(digest).toEqual(digests[0]);
  });

  test('the links of mode subfdt lead to the bytes that the other modes have in one FDT', () => {
    const memory = ImageMemory.open(join(base, 'subfdt-2/ram.img'));
    for (const { name } of record('subfdt-2').drivers) {
      const links = FdtReader.open(new Uint8Array(readFileSync(join(base, 'subfdt-2/kho/out/sub_fdts', name))));
      const tree = new FdtTree();
      for (const property of links.root.properties()) tree.root.properties.set(property.name, property.value);
      let linked = 0;
      for (const node of links.root.children()) {
        const fdts = (readSubFdtLinks(node) ?? []).map((link) => FdtReader.open(memory.read(link.address, link.size)));
        tree.root.children.set(node.name, joinSubFdts(node.name, fdts));
        linked += fdts.length;
      }
      expect([name, linked]).toEqual([name, record('subfdt-2').drivers.find((driver) => driver.name === name)?.shards]);
      const whole = readFileSync(join(base, 'hash-2/kho/out/sub_fdts', name));
      expect(Buffer.from(tree.render({ sortStrings: true })).equals(whole)).toBe(true);
    }
    memory.close();
  });

  test('all instances come back from mode subfdt too, and run.json counts the same nodes and properties', () => {
    const key = (one: { driver: string; name: string; digest: string }) => `${one.driver}/${one.name} ${one.digest}`;
    const { instances, successor, drivers } = record('subfdt-2');
    expect(successor?.restored.map(key).sort()).toEqual(instances.map(key).sort());
    expect(successor?.unclaimed).toEqual([]);
    const counts = (name: string) => record(name).drivers.map((one) => [one.name, one.nodes, one.properties]);
    expect(counts('subfdt-2')).toEqual(counts('hash-2'));
    expect(drivers.length).toBe(6);
  });

  test('another seed hands over something else', async () => {
    const result = await khorus(['run', SCENARIO, '--seed', '8', '--quiet', '--out', join(base, 'seed-8')]);
    expect(result.code).toBe(0);
    expect(digestOf(join(base, 'seed-8'))['ram.img']).not.toBe(digestOf(join(base, 'hash-2'))['ram.img']);
  });

  test('all six drivers, at least 300 instances and 50,000 properties, come back with the state they had', () => {
    const { drivers, instances, successor } = record('hash-2');
    expect(drivers.map(({ name }) => name).sort()).toEqual([
      'ftrace',
      'iommu',
      'kvm-vcpu',
      'memfd',
      'netdevsim',
      'vfio-pci',
    ]);
    expect(instances.length).toBeGreaterThanOrEqual(300);
    expect(drivers.reduce((sum, { properties }) => sum + properties, 0)).toBeGreaterThanOrEqual(50_000);
    const key = (instance: { driver: string; name: string; digest: string }) =>
      `${instance.driver}/${instance.name} ${instance.digest}`;
    expect(successor?.restored.map(key).sort()).toEqual(instances.map(key).sort());
    expect(successor?.unclaimed).toEqual([]);
    expect(successor?.revived.map(({ name }) => name)).toEqual(['trace', 'pstore']);
  });

  test('in mode hash two threads ran serialize callbacks at the same time; in sequential one thread ran all', () => {
    const overlapping = (name: string): boolean => {
      const spans = record(name).timeline.spans.filter(
        ({ phase, driver }) => phase === 'serialize' && driver !== undefined,
      );
      spans.sort((a, b) => a.start - b.start);
      let latest = spans[0];
      for (const span of spans.slice(1)) {
        if (latest !== undefined && span.thread !== latest.thread && span.start < latest.end) return true;
        if (latest === undefined || span.end > latest.end) latest = span;
      }
      return false;
    };
    expect(overlapping('hash-2')).toBe(true);
    expect(overlapping('sequential')).toBe(false);
    const threads = (name: string) =>
      new Set(
        record(name).timeline.spans.flatMap(({ driver, thread, phase }) =>
          driver && phase === 'serialize' ? [thread] : [],
        ),
      );
    expect(threads('hash-2').size).toBe(3); // the pool's two, and the host of the driver with live state
    expect(threads('sequential').size).toBe(1);
  });

  test('the memory image is sparse', () => {
    const { size, blocks } = statSync(join(base, 'hash-2', 'ram.img'));
    expect(size).toBe(2 ** 31);
    expect(blocks * 512).toBeLessThan(2 ** 28);
  });

  test('scratch_phys and scratch_len read as debugfs shows them', () => {
    const lines = (file: string) => readFileSync(join(base, 'hash-2/kho/out', file), 'utf8');
    expect(lines('scratch_phys')).toMatch(/^(0x[0-9a-f]+\n){4}$/);
    expect(lines('scratch_len')).toBe('0x1000000\n0x8000000\n0x4000000\n0x4000000\n');
  });

  judgedTest(
    'dtc accepts the root FDT and every sub-FDT; libfdt reads back the same and builds the same tree',
    async () => {
      const out = join(base, 'hash-2/kho/out');
      const files = ['fdt', ...readdirSync(join(out, 'sub_fdts')).map((name) => `sub_fdts/${name}`)];
      const fdts = files.filter((file) => file !== 'sub_fdts/kexec-metadata');
      expect(fdts.length).toBe(8);
      for (const file of fdts) {
        const blob = readFileSync(join(out, file));
        const bytes = Uint8Array.from(blob);
        expect(await dtcAccepts(join(out, file))).toBe(true);
        const ours = dumpLines(FdtReader.open(bytes));
        expect(await libfdtDump(bytes)).toEqual(ours);
        const built = await libfdtBuild(ours);
        expect(FdtTree.equal(FdtTree.parse(bytes), FdtTree.parse(built))).toBeUndefined();
      }
    },
  );

  test('verify accepts what was written', async () => {
    const result = await khorus(['verify', join(base, 'hash-2')]);
    expect(result.stderr).toBe('');
    expect(result.stdout).toMatch(/^verified: 330 instances restored, .* all digests equal\n$/);
    expect(result.code).toBe(0);
  });

  test('time, blame and inspect tell of the run, and print one document under --json', async () => {
    const directory = join(base, 'hash-2');
    const time = await khorus(['time', directory]);
    expect(time.stdout).toContain('(blackout)');
    const blame = await khorus(['blame', directory]);
    expect(blame.stdout).toContain('netdevsim');
    const inspect = await khorus(['inspect', directory]);
    expect(inspect.stdout).toContain('x86_64 setup_data');
    expect(inspect.stdout).toContain('kho-v4');
    for (const command of ['time', 'blame', 'inspect', 'verify']) {
      const { stdout, code } = await khorus([command, directory, '--json']);
      expect([command, code, JSON.parse(stdout).schemaVersion]).toEqual([command, 0, 1]);
    }
  });
});

test('npm start prints one additive blackout line and that every driver was restored', async () => {
  const { stdout, code } = await khorus(['run', SCENARIO]);
  expect(code).toBe(0);
  const [line = ''] = stdout.split('\n');
  const parts = /^Blackout: (.*) = ([\d.]+)(m?s) \(budget [\d.]+m?s, [\d.]+m?s left\)$/.exec(line);
  expect(parts, line).not.toBeNull();
  const terms = (parts?.[1] ?? '').split(' + ').map((term) => Number(/([\d.]+)m?s$/.exec(term)?.[1]));
  expect(terms.length).toBe(6);
  expect(terms.reduce((sum, term) => sum + term, 0)).toBeCloseTo(Number(parts?.[2]), 6);
  expect(stdout).toMatch(/^restored 6 of 6 drivers: 330 instances, [\d.]+ MiB$/m);
});

/** SHA-256 of ram.img and of each file below kho/out. */
function digestOf(directory: string): Record<string, string> {
  const files = [
    'ram.img',
    ...readdirSync(join(directory, 'kho/out'), { recursive: true }).map((file) => `kho/out/${file}`),
  ];
  const digests: Record<string, string> = {};
  for (const file of files) {
    const path = join(directory, file);
    if (statSync(path).isFile()) digests[file] = hashFile(path);
  }
  return digests;
}

/** In pieces; of those that are all zero, holes mostly, only the place counts, or hashing them would take a minute. */
function hashFile(path: string): string {
  const hash = createHash('sha256');
  const piece = Buffer.alloc(2 ** 22);
  const file = openSync(path, 'r');
  const zeros = Buffer.alloc(piece.length);
  for (let length = readSync(file, piece); length > 0; length = readSync(file, piece)) {
    const bytes = piece.subarray(0, length);
    hash.update(bytes.equals(zeros.subarray(0, length)) ? `hole of ${length};` : bytes);
  }
  closeSync(file);
  return hash.digest('hex');
}
