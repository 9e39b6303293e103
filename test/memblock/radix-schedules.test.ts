import { describe, expect, test, vi } from 'vitest';
import { exploreAll } from '../hashstage/interleaving/explore.js';
import type { FindingKind } from '../hashstage/interleaving/program.js';
import type { Mutation } from '../hashstage/interleaving/shipped.js';
import * as programs from './radix-programs.js';

const { loadRadix, radixProgram, radixPrograms } = programs;
const load = await loadRadix();

// How busy the machine is must not decide what is proven.
vi.setConfig({ testTimeout: 300_000 });

describe('in every schedule of two threads there is no race, no mark is lost, and no page', () => {
  for (const program of radixPrograms) {
    test(program.name, () => {
      const { finding, schedules } = exploreAll(radixProgram(load, program));
      expect(finding && `${finding.kind}: ${finding.message}\nafter ${finding.schedule}`).toBeUndefined();
      expect(schedules).toBeGreaterThan(1);
    });
  }
});

const BRANCH = 'memblock/radix-branch.js';
const TREE = 'memblock/radix-tree.js';
const INSTALL = 'const winner = Atomics.compareExchange(array, index, 0n, BigInt(branch[0]));';
const UNDO = 'Atomics.and(words[leaf], index, ~(mask & ~taken));';

/** An atomic AND or OR on `word` in two steps, as an expression with the same value. */
const inTwoSteps = (word: string, change: string) =>
  `((old) => (Atomics.store(${word}, old ${change}), old))(Atomics.load(${word}))`;
const WORD = 'words[leaf], index';
const WORD_OF_ONE = 'words[leaf], starts[leaf] + (bit >>> 5)';

interface Planted {
  readonly name: string;
  readonly file?: string;
  readonly find: Mutation['find'];
  readonly replace: string;
  readonly foundBy: string;
  readonly kind: FindingKind;
}

const planted: readonly Planted[] = [
  ...[programs.LEAF, programs.BRANCH, programs.TABLE].map(
    (foundBy): Planted => ({
      name: `a branch is linked by load, test and store, where ${foundBy}`,
      file: BRANCH,
      find: INSTALL,
      replace:
        'const winner = Atomics.load(array, index); if (winner === 0n) Atomics.store(array, index, BigInt(branch[0]));',
      foundBy,
      kind: 'result',
    }),
  ),
  {
    name: 'a branch is linked by a plain store',
    file: BRANCH,
    find: INSTALL,
    replace: 'const winner = Atomics.load(array, index); if (winner === 0n) array[index] = BigInt(branch[0]);',
    foundBy: programs.LEAF,
    kind: 'race',
  },
  {
    name: 'a branch is shown before its tables are linked',
    file: BRANCH,
    find: /this\.#chain\(branch, leaf, true\);\s+(const winner = .*;)/g,
    replace: '$1 this.#chain(branch, leaf, true);',
    foundBy: programs.BRANCH,
    kind: 'race',
  },
  {
    name: 'a mark is set by load and store',
    find: `Atomics.or(${WORD_OF_ONE}, mask)`,
    replace: inTwoSteps(WORD_OF_ONE, '| mask'),
    foundBy: programs.BESIDE,
    kind: 'result',
  },
  {
    name: 'a mark is taken back by load and store',
    find: `Atomics.and(${WORD_OF_ONE}, ~mask)`,
    replace: inTwoSteps(WORD_OF_ONE, '& ~mask'),
    foundBy: programs.CLEAR,
    kind: 'result',
  },
  {
    name: 'a run is marked by a plain OR',
    find: `Atomics.or(${WORD}, mask) & mask;`,
    replace: 'words[leaf][index] & mask; words[leaf][index] |= mask;',
    foundBy: programs.BESIDE,
    kind: 'race',
  },
  {
    name: 'a run is marked by load and store',
    find: `Atomics.or(${WORD}, mask)`,
    replace: inTwoSteps(WORD, '| mask'),
    foundBy: programs.BESIDE,
    kind: 'result',
  },
  {
    name: 'a run is undone by a plain AND',
    find: UNDO,
    replace: 'words[leaf][index] &= ~(mask & ~taken);',
    foundBy: programs.UNDO,
    kind: 'race',
  },
  {
    name: 'a run is undone by load and store',
    find: UNDO,
    replace: inTwoSteps(WORD, '& ~(mask & ~taken)'),
    foundBy: programs.UNDO,
    kind: 'result',
  },
  {
    name: 'a run that is undone takes the marks of another with it',
    find: UNDO,
    replace: `Atomics.and(${WORD}, ~mask);`,
    foundBy: programs.OVERLAP,
    kind: 'result',
  },
  {
    name: 'of a run that is undone the first word stays',
    find: 'this.clearRun(address, order, number - first);',
    replace: ';',
    foundBy: programs.WORDS,
    kind: 'result',
  },
  {
    name: 'a run is taken back by load and store',
    find: `Atomics.and(${WORD}, ~mask)`,
    replace: inTwoSteps(WORD, '& ~mask'),
    foundBy: programs.CLEAR_RUN,
    kind: 'result',
  },
  {
    name: 'a run that was not taken back is marked again by load and store',
    find: `Atomics.or(${WORD}, mask & ~missing)`,
    replace: inTwoSteps(WORD, '| (mask & ~missing)'),
    foundBy: programs.CLEAR_UNDO,
    kind: 'result',
  },
];

describe('a planted bug is found', () => {
  for (const { name, file = TREE, find, replace, foundBy, kind } of planted) {
    test(name, async () => {
      const program = radixPrograms.find((one) => one.name === foundBy);
      if (program === undefined) throw new Error(`there is no program '${foundBy}'`);
      const mutated = await loadRadix([{ file, find, replace }]);
      expect(exploreAll(radixProgram(mutated, program)).finding).toMatchObject({ kind });
    });
  }
});
