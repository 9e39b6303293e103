import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { SUITES } from '../../bench/suites.js';
import { type CommandResult, ROOT, temporaryDirectory } from '../support/run.js';

function bench(...args: string[]): Promise<CommandResult> {
  return new Promise((resolve) => {
    const command = [join(ROOT, '.bench-build/main.js'), ...args];
    const child = execFile(process.execPath, command, { maxBuffer: 2 ** 24 }, (_error, stdout, stderr) =>
      resolve({ code: child.exitCode, stdout, stderr }),
    );
  });
}

test.each([
  [['stag'], "There is no suite 'stag'; did you mean 'stage'?"],
  [['nonsense'], "There is no suite 'nonsense'."],
  [['--roundz', '3'], "unknown option '--roundz'"],
  [['--rounds', '0'], 'Expected a whole number from 1'],
  [['--rounds', '1.5'], 'Expected a whole number from 1'],
  [['--json'], "option '--json <file>' argument missing"],
])('%j is wrong usage, and measures nothing', async (args, message) => {
  const { code, stdout, stderr } = await bench(...args);
  expect(stderr).toContain(message);
  expect(stderr).toContain('--help shows what there is');
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
});

test('a file that cannot be written is wrong usage, told before anything is measured', async () => {
  const { code, stdout, stderr } = await bench('memory', '--json', join(temporaryDirectory(), 'absent', 'bench.json'));
  expect(stderr).toMatch(/^bench: --json: ENOENT.*bench\.json/);
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
});

test('--list names every suite, and --help every option', async () => {
  const list = await bench('--list');
  expect(list).toMatchObject({ code: 0, stderr: '' });
  for (const { name, summary } of SUITES) expect(list.stdout).toMatch(new RegExp(`^${name} +${summary}$`, 'm'));
  const help = await bench('--help');
  expect(help.code).toBe(0);
  for (const option of ['--json', '--rounds', '--quick', '--list']) expect(help.stdout).toContain(option);
});

test.each(SUITES.map(({ name }) => name))(
  'the suite %s runs, prints its tables and writes all rounds',
  async (name) => {
    const directory = temporaryDirectory();
    const file = join(directory, 'bench.json');
    const { code, stdout, stderr } = await bench(name, '--quick', '--rounds', '1', '--json', file);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(readdirSync(directory)).toEqual(['bench.json']);
    const { schemaVersion, environment, suites } = JSON.parse(readFileSync(file, 'utf8'));
    expect(schemaVersion).toBe(1);
    expect(environment).toMatchObject({ node: process.version, cores: expect.any(Number) });
    expect(suites).toHaveLength(1);
    for (const { title, unit, reference, rounds, variants } of suites[0].comparisons) {
      expect(stdout).toContain(title);
      expect(stdout).toContain(unit);
      expect(variants.map((variant: { name: string }) => variant.name)).toContain(reference);
      for (const round of rounds) {
        for (const variant of variants) {
          expect(stdout).toContain(variant.name);
          for (const sample of round.samples[variant.name]) expect(sample).toBeGreaterThan(0);
        }
      }
    }
  },
);
