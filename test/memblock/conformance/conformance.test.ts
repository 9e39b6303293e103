import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { CASES, MODULES } from './cases.js';

/** The names that the simulator prints with NUMA, in its order. */
const names = readFileSync(new URL('cases.txt', import.meta.url), 'utf8')
  .trimEnd()
  .split('\n');

/** A test for each case, with its whole name: `it.each` would cut it short. */
function testsOf(cases: typeof CASES, movableNode: boolean): void {
  for (const { id, run } of cases) {
    it(id, () => {
      expect(expect.getState().currentTestName?.endsWith(` > ${id}`)).toBe(true);
      run({ movableNode });
    });
  }
}

describe('the cases of the kernel’s memblock simulator', () => {
  it('are 264, and each has one test here; no test has another name', () => {
    expect([names.length, new Set(names).size]).toEqual([264, 264]);
    expect(CASES.map(({ id }) => id).sort()).toEqual([...names].sort());
  });

  testsOf(CASES, false);

  it('are told in docs/memblock-conformance.md, each with the file that its test is in', () => {
    const docs = readFileSync(new URL('../../../docs/memblock-conformance.md', import.meta.url), 'utf8');
    const files = new Map(
      Object.entries(MODULES).flatMap(([file, cases]) => cases.map(({ id }) => [id, `${file}.ts`] as const)),
    );
    const rows = names.map((name, index) => `| ${index + 1} | \`${name}\` | ${files.get(name)} |`);
    expect(docs.split('\n').filter((line) => /^\| \d/.test(line))).toEqual(rows);
  });
});

describe('the cases of allocation with movable_node', () => {
  const { 'region-cases': _, 'growth-cases': _growth, ...allocation } = MODULES;
  testsOf(Object.values(allocation).flat(), true);
});
