import { describe, expect, test, vi } from 'vitest';
import { exploreAll, exploreAtRandom } from './explore.js';
import { plantedBugs } from './planted-bugs.js';
import { portMtu, renderShards, writeShard } from './shard-programs.js';
import { loadShipped, type Mutation } from './shipped.js';
import { type StageProgram, stageProgram } from './stage-program.js';
import { largePrograms, smallPrograms } from './stage-programs.js';

// How busy the machine is must not decide what is proven.
vi.setConfig({ testTimeout: 300_000 });

function named(name: string): StageProgram {
  const program = smallPrograms.find((program) => program.name === name);
  if (program === undefined) throw new Error(`there is no program '${name}'`);
  return program;
}

describe('a planted bug is found', () => {
  for (const { name, mutations, foundBy, kind, message } of plantedBugs) {
    test(name, async () => {
      const { finding } = exploreAll(stageProgram(await loadShipped(mutations), named(foundBy)));
      expect(finding).toMatchObject({ kind, message: expect.stringMatching(message) });
      expect(finding?.schedule).toMatch(/^w1 x\d/);
    });
  }
});

describe('a reader that does not wait for the message is found', () => {
  const cases: Record<string, StageProgram['threads']> = {
    'a shard is rendered while it is written': { w1: writeShard(0, portMtu), end: renderShards(0) },
    'of two shards that are rendered, one is awaited': {
      w1: writeShard(0, portMtu),
      w2: writeShard(1, portMtu),
      end: [['w1'], renderShards(0, 1)],
    },
    'a shard goes on in another thread before the first one has ended': {
      w1: writeShard(0, portMtu),
      w2: writeShard(0, portMtu),
    },
    'the path of a node is read that another thread may not have made yet': {
      w1: (stage) => stage.openNode(-1, 'port'),
      // As if the number came to it by some other way than a message.
      end: (stage) => stage.nodePath(stage.geometry.arenasAt),
    },
  };
  for (const [name, threads] of Object.entries(cases)) {
    test(name, async () => {
      const { finding } = exploreAll(stageProgram(await loadShipped(), { name, threads, check: () => {} }));
      expect(finding?.kind).toBe('race');
    });
  }
});

describe('a change that is no bug is none', () => {
  const cases: Record<string, readonly Mutation[]> = {
    'a slot is read by an addition of nothing, which is stronger': [
      {
        file: 'hashstage/stage.js',
        find: 'let found = Atomics.load(words, slot);',
        replace: 'let found = Atomics.add(words, slot, 0);',
        places: 2,
      },
    ],
    'a slot is looked at once more before it is taken': [
      {
        file: 'hashstage/stage.js',
        find: 'found = Atomics.compareExchange(words, slot, 0, record);',
        replace:
          'found = Atomics.load(words, slot); if (found === 0) found = Atomics.compareExchange(words, slot, 0, record);',
        places: 2,
      },
    ],
  };
  for (const [name, mutations] of Object.entries(cases)) {
    test(name, async () => {
      const load = await loadShipped(mutations);
      for (const program of [...new Set(plantedBugs.map(({ foundBy }) => foundBy))].map(named)) {
        if (Object.keys(program.threads).includes('reader')) continue; // takes long
        expect(exploreAll(stageProgram(load, program)).finding).toBeUndefined();
      }
    });
  }
});

test('random schedules of large programs find each of them too', async () => {
  const missed: string[] = [];
  for (const { name, mutations } of plantedBugs) {
    const load = await loadShipped(mutations);
    const found = largePrograms.some(
      (program) => exploreAtRandom(stageProgram(load, program), { count: 1000, seed: 1 }).finding !== undefined,
    );
    if (!found) missed.push(name);
  }
  expect(missed).toEqual([]);
});

test('a planted bug that does not apply is an error that says so', async () => {
  const mutation = { file: 'hashstage/stage.js', find: 'Atomics.no(', replace: '' };
  await expect(loadShipped([mutation])).rejects.toThrow(
    'the planted bug does not apply: dist/hashstage/stage.js has 0 places, not 1, with Atomics.no(',
  );
  await expect(loadShipped([{ ...mutation, find: /Atomics\.load/g }])).rejects.toThrow(/has \d+ places, not 1/);
  await expect(loadShipped([{ ...mutation, file: 'hashstage/no.js' }])).rejects.toThrow(
    'hashstage/no.js is not among the shipped modules that are driven',
  );
});
