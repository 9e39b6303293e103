import { describe, expect, test, vi } from 'vitest';
import { exploreAll, exploreAtRandom } from './explore.js';
import type { Finding } from './program.js';
import { loadShipped } from './shipped.js';
import { stageProgram } from './stage-program.js';
import { largePrograms, smallPrograms } from './stage-programs.js';

const RANDOM_SCHEDULES = 2000;
const load = await loadShipped();
/** How many schedules of each program were run. */
const explored = new Map<string, number>();

function expectNone(finding: Finding | undefined): void {
  expect(finding && `${finding.kind}: ${finding.message}\nafter ${finding.schedule}`).toBeUndefined();
}

// How busy the machine is must not decide what is proven.
vi.setConfig({ testTimeout: 300_000 });

describe('in every schedule there is no race and nothing is lost', () => {
  for (const program of smallPrograms) {
    test(program.name, () => {
      const { finding, schedules } = exploreAll(stageProgram(load, program));
      expectNone(finding);
      explored.set(program.name, schedules);
    });
  }
});

describe('in random schedules there is no race and nothing is lost', () => {
  for (const program of largePrograms) {
    test(program.name, () => {
      const { finding, distinct } = exploreAtRandom(stageProgram(load, program), { count: RANDOM_SCHEDULES, seed: 1 });
      expectNone(finding);
      expect(distinct).toBeGreaterThan(RANDOM_SCHEDULES / 2);
      explored.set(program.name, distinct);
    });
  }
});

test('that were at least 100,000 schedules, no two of them the same', async ({ annotate, skip }) => {
  skip(explored.size < smallPrograms.length + largePrograms.length, 'not all programs were run');
  const count = [...explored.values()].reduce((sum, schedules) => sum + schedules, 0);
  await annotate(`${count} schedules`);
  expect(count).toBeGreaterThanOrEqual(100_000);
});

describe('schedules that are left out for being equivalent have no other results', () => {
  for (const name of [
    'two threads intern one name',
    'two threads intern two names that want one slot, in opposite order',
    'two threads need the last arena',
  ]) {
    test(name, () => {
      const program = smallPrograms.find((program) => program.name === name);
      if (program === undefined) throw new Error(`there is no program '${name}'`);
      const reduced = exploreAll(stageProgram(load, program));
      const all = exploreAll(stageProgram(load, program), { reduce: false });
      expectNone(all.finding);
      expect(all.schedules).toBeGreaterThan(reduced.schedules);
      expect(all.results).toEqual(reduced.results);
      // Interruptions at plain accesses, too, make no schedule that is not equivalent to one of these.
      const everywhere = exploreAll(stageProgram(load, program), { points: 'every' });
      expectNone(everywhere.finding);
      expect(everywhere.schedules).toBe(reduced.schedules);
      expect(everywhere.results).toEqual(reduced.results);
    });
  }
});
