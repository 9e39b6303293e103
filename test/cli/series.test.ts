import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RunRecord } from 'khorus';
import { FdtReader } from 'khorus/fdt';
import { beforeAll, describe, expect, test } from 'vitest';
import { dtcAccepts, dtcDts, dumpLines, judgedTest, libfdtDump } from '../fdt/libfdt.js';
import { khorus, ROOT, SMALL_SCENARIO, temporaryDirectory } from '../support/run.js';

const SERIES = ['series-v4', 'series-v5'] as const;

describe.each(SERIES)('scenarios/host.yaml in profile %s', (profile) => {
  let base = '';
  const out = () => join(base, 'out');
  const fdt = () => readFileSync(join(out(), 'kho/out/fdt'));
  const record = (): RunRecord => JSON.parse(readFileSync(join(out(), 'run.json'), 'utf8'));

  beforeAll(async () => {
    base = mkdtempSync(join(tmpdir(), 'khorus-series-'));
    const scenario = join(ROOT, 'scenarios/host.yaml');
    const { code, stdout, stderr } = await khorus(['run', scenario, '--profile', profile, '--out', out()]);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toContain('restored 6 of 6 drivers: 330 instances');
    return () => rmSync(base, { recursive: true, force: true });
  }, 120_000);

  test('run.json and kho/out tell of one FDT', () => {
    const { profile: recorded, fdtMax, root, drivers, successor } = record();
    expect([recorded, successor?.profile, fdtMax]).toEqual([profile, profile, 10 * 2 ** 20]);
    expect(fdt().length).toBe(root.size);
    expect(existsSync(join(out(), 'kho/out/sub_fdts'))).toBe(false);
    const { root: node } = FdtReader.open(fdt(), { strict: true });
    for (const { name, blob, instances } of drivers) {
      const driver = node.get(name);
      expect(root.address + driver.offset).toBe(blob.address);
      expect([...driver.children()].length).toBe(instances);
    }
  });

  test('verify accepts it', async () => {
    const { code, stdout } = await khorus(['verify', out()]);
    expect([code, stdout]).toEqual([0, expect.stringContaining('verified: 330 instances restored')]);
  });

  test('inspect reads and checks all of it, with owners', async () => {
    const { code, stdout } = await khorus(['inspect', out(), '--no-contents']);
    expect(code).toBe(0);
    expect(stdout).toContain(`kho-v1 (${profile})`);
    expect(stdout).toMatch(/^ {2}iommu .* iommu-v1, 16 instances$/m);
    expect(stdout).toMatch(/^ {2}trace .* 1 MiB/m);
    expect(stdout).toMatch(/^ {2}driver iommu .* objects/m);
    expect(stdout).toContain('3 files as in memory');
    expect(stdout).not.toContain('findings');
    expect(stdout).not.toContain('unclaimed');
    expect(stdout).toMatch(
      profile === 'series-v4' ? /^tracker +the FDT's properties mem$/m : /^tracker .* pages of chunks and bitmaps$/m,
    );
  });

  test('a core that inspect --extract writes is read like the image', async () => {
    const core = join(temporaryDirectory(), 'handover.core');
    const image = join(out(), 'ram.img');
    const whole = await khorus(['inspect', image, '--no-contents', '--json', '--extract', core]);
    const read = await khorus(['inspect', core, '--no-contents', '--json']);
    const { file: _file, extracted: _extracted, ...rest } = JSON.parse(whole.stdout);
    expect(read.code).toBe(0);
    expect(JSON.parse(read.stdout)).toMatchObject(rest);
  });

  test('dts decodes what lists preserved memory', async () => {
    const { code, stdout } = await khorus(['dts', join(out(), 'kho/out/fdt')]);
    expect(code).toBe(0);
    expect(stdout).toMatch(
      profile === 'series-v4'
        ? /mem = <.*>; \/\* 0x[0-9a-f]+ \+ 0x100000 = 1 MiB \*\//
        : /metadata = <.*>; \/\* 0x[0-9a-f]+000 \*\//,
    );
  });

  judgedTest(`dtc and libfdt accept the FDT of ${profile}, and read in it what we do`, () => {
    const file = join(out(), 'kho/out/fdt');
    expect(dtcAccepts(file)).toBe(true);
    expect(dtcDts(fdt())).toContain('compatible = "kho-v1";');
    expect(libfdtDump(fdt())).toEqual(dumpLines(FdtReader.open(fdt())));
  });

  test('one changed byte of the FDT is found, and whose it is', async () => {
    const { root, instances } = record();
    const victim = instances.find(({ driver, name }) => driver === 'kvm-vcpu' && name.endsWith('7'));
    const image = join(out(), 'ram.img');
    const file = openSync(image, 'r+');
    // Inside the value of a property: the first one's, behind BEGIN, the name, and the property's header.
    const at = root.address + (victim?.blobOffset ?? 0) + 4 + 4 * (((victim?.name.length ?? 0) >> 2) + 1) + 12;
    const before = readFileSync(join(out(), 'kho/out/fdt'))[at - root.address] ?? 0;
    try {
      writeSync(file, Uint8Array.of(before ^ 0x40), 0, 1, at);
      const { code, stderr } = await khorus(['verify', out()]);
      expect(code).toBe(1);
      expect(stderr).toMatch(/the page at 0x[0-9a-f]+ of the FDT is not what it was at the jump: kvm-vcpu /);
      expect((await khorus(['inspect', out(), '--no-contents'])).stdout).toContain('kho/out/fdt differs');
      writeSync(file, Uint8Array.of(0), 0, 1, root.address);
      const noFdt = await khorus(['verify', out()]);
      expect([noFdt.code, noFdt.stderr]).toEqual([1, expect.stringContaining('nothing was restored')]);
    } finally {
      writeSync(file, Uint8Array.of(before), 0, 1, at);
      writeSync(file, fdt(), 0, 1, root.address);
      closeSync(file);
    }
  });

  test('no kernel can be loaded for it', async () => {
    const { code, stderr } = await khorus(['kexec', out(), '--kernel', join(out(), 'run.json'), '--qemu']);
    expect([code, stderr]).toEqual([2, expect.stringContaining(`no released kernel speaks profile ${profile}`)]);
    const run = await khorus(['run', '--profile', profile, '--kernel', join(out(), 'run.json')]);
    expect([run.code, run.stderr]).toEqual([2, expect.stringContaining('no released kernel speaks')]);
  });
});

describe('the room for the one FDT', () => {
  async function runWith(head: string, ...args: string[]) {
    const file = join(temporaryDirectory(), 'host.yaml');
    writeFileSync(file, `${head}\n${SMALL_SCENARIO}`);
    return khorus(['run', file, ...args]);
  }

  test('comes from the scenario, and the command line goes before it', async () => {
    const small = await runWith('profile: series-v5\nfdtMax: 16K');
    expect([small.code, small.stderr]).toEqual([
      1,
      expect.stringContaining('the one FDT of series-v5 does not fit into its room, fdt_max = 16384 bytes'),
    ]);
    const large = await runWith('profile: series-v5\nfdtMax: 16K', '--fdt-max', '4M');
    expect([large.code, large.stderr]).toEqual([0, '']);
  });

  test.each([
    ['--fdt-max', '4097', /expected 4K to 256M, a multiple of 4K/],
    ['--fdt-max', '1G', /expected 4K to 256M/],
    ['--fdt-max', 'much', /'much' is not a size/],
  ])('%s %s is wrong usage', async (option, value, message) => {
    const { code, stderr } = await runWith('profile: series-v4', option, value);
    expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
  });

  test('is nothing that kho-v4 has', async () => {
    const { code, stderr } = await runWith('profile: kho-v4', '--fdt-max', '1M');
    expect([code, stderr]).toEqual([2, expect.stringContaining('the profile kho-v4 has no one FDT')]);
  });

  test('is told with its line if a scenario has it wrong', async () => {
    const { code, stderr } = await runWith('profile: series-v5\nfdtMax: 5000');
    expect([code, stderr]).toEqual([
      2,
      expect.stringMatching(/5000 bytes are no room for the FDT.*host\.yaml:2:9, fdtMax/),
    ]);
  });
});

test('profiles lists what there is', async () => {
  const { code, stdout } = await khorus(['profiles']);
  expect(code).toBe(0);
  expect(
    stdout
      .trimEnd()
      .split('\n')
      .map((line) => line.split(/ {2,}/)[0]),
  ).toEqual(['profile', 'kho-v4', 'kho-v3', 'kho-v2', 'kho-v1', 'kho-v1-6.16', ...SERIES]);
  expect(JSON.parse((await khorus(['profiles', '--json'])).stdout).profiles).toMatchObject([
    {
      name: 'kho-v4',
      compatible: 'kho-v4',
      form: 'sub-blobs',
      preservedMemory: 'radix-tree',
      releases: 'Linux 7.2, 7.3',
      subtrees: { addressProperty: 'preserved-data', sized: true, order: 'newest first' },
    },
    { name: 'kho-v3', compatible: 'kho-v3', preservedMemory: 'radix-tree', releases: 'Linux 7.1' },
    { name: 'kho-v2', subtrees: { sized: false }, releases: null, unreleased: 'between 7.0 and 7.1' },
    { name: 'kho-v1', compatible: 'kho-v1', preservedMemory: 'chunk-list', bitmapBits: 32768 },
    { name: 'kho-v1-6.16', compatible: 'kho-v1', bitmapBits: 4096, releases: 'Linux 6.16 to 6.17.8' },
    { name: 'series-v4', compatible: 'kho-v1', form: 'one-fdt', preservedMemory: 'mem-properties', releases: null },
    { name: 'series-v5', compatible: 'kho-v1', form: 'one-fdt', preservedMemory: 'chunk-list', releases: null },
  ]);
  expect((await khorus(['profiles', '--quiet'])).stdout).toBe('');
});
