import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict';
import { ARENA_WORDS, type Stage } from '#dist/hashstage/index.js';
import { largeShardPrograms, shardPrograms } from './shard-programs.js';
import { type Body, isFull, leaveArenas, ROOT, SMALL_STAGE, type StageProgram, wantOneSlot } from './stage-program.js';
import {
  checkNames,
  checkPaths,
  fullCount,
  type Got,
  intern,
  type NamesSeen,
  namesAfter,
  openInNewArenas,
  openPaths,
  pathsAfter,
} from './stage-threads.js';

const [NAME_A, NAME_B] = wantOneSlot('name', 'property');
const [NODE_A, NODE_B] = wantOneSlot('node', 'node');

/** Asks for more arenas at once than there are. */
const askForFour = (stage: Stage): boolean => isFull(() => stage.allocate(4 * ARENA_WORDS));

/** The text of a name id that came to the thread by no message, if there is one already. */
function guess(stage: Stage, id: number): string | undefined {
  try {
    return stage.nameText(id);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'KHO_EINVAL') return undefined;
    throw error;
  }
}

const names: readonly StageProgram[] = [
  {
    name: 'two threads intern one name',
    threads: { w1: intern('mtu'), w2: intern('mtu'), end: namesAfter('w1', 'w2') },
    check: checkNames,
  },
  {
    name: 'two threads intern two names that want one slot, in opposite order',
    threads: { w1: intern(NAME_A, NAME_B), w2: intern(NAME_B, NAME_A), end: namesAfter('w1', 'w2') },
    check: checkNames,
  },
  {
    name: 'three threads intern one name',
    threads: { w1: intern('mtu'), w2: intern('mtu'), w3: intern('mtu'), end: namesAfter('w1', 'w2', 'w3') },
    check: checkNames,
  },
  {
    name: 'three threads intern names that want one slot',
    threads: {
      w1: intern(NAME_A, NAME_B),
      w2: intern(NAME_B),
      w3: intern(NAME_A),
      end: namesAfter('w1', 'w2', 'w3'),
    },
    check: checkNames,
  },
  {
    name: 'two threads intern the last name that there is room for',
    threads: { w1: intern('p3'), w2: intern('p4'), end: namesAfter('w1', 'w2') },
    prepare: (stage) => {
      for (let taken = 0; taken < 3; taken++) stage.nameId(`p${taken}`);
    },
    check: (results) => {
      checkNames(results);
      strictEqual(fullCount(results), 1);
    },
  },
  {
    name: 'a thread looks names up while others intern some',
    threads: {
      w1: intern(NAME_A),
      w2: intern(NAME_B),
      reader: (stage) => {
        const before = stage.names();
        const id = stage.nameId(NAME_A);
        return { before, id, text: stage.nameText(id) };
      },
      end: namesAfter('w1', 'w2', 'reader'),
    },
    check: ({ reader, ...results }) => {
      checkNames(results);
      const { names } = results.end as NamesSeen;
      const seen = reader as { before: string[]; id: number; text: string };
      strictEqual(seen.text, NAME_A);
      strictEqual(names[seen.id], NAME_A);
      for (const [id, name] of Object.entries(seen.before)) strictEqual(names[Number(id)], name);
    },
  },
  {
    name: 'a thread guesses the id of a name that others intern',
    threads: {
      w1: intern('mtu', 'rx'),
      w2: intern('mtu', 'tx'),
      reader: (stage) => guess(stage, 1),
      end: namesAfter('w1', 'w2', 'reader'),
    },
    check: ({ reader, ...results }) => {
      checkNames(results);
      if (reader !== undefined) strictEqual(reader, (results.end as NamesSeen).names[1]);
    },
  },
];

const nodes: readonly StageProgram[] = [
  {
    name: 'two threads open one node, and below it one together and one each',
    threads: {
      w1: openPaths('/port', '/port/queue', '/port/rx'),
      w2: openPaths('/port', '/port/queue', '/port/tx'),
      end: pathsAfter('w1', 'w2'),
    },
    check: checkPaths,
  },
  {
    name: 'two threads open nodes of one name below different parents',
    threads: {
      w1: openPaths('/a', '/a/q'),
      w2: openPaths('/b', '/b/q', '/a', '/a/q'),
      end: pathsAfter('w1', 'w2'),
    },
    check: checkPaths,
  },
  {
    name: 'three threads open one node',
    threads: { w1: openPaths('/p'), w2: openPaths('/p'), w3: openPaths('/p'), end: pathsAfter('w1', 'w2', 'w3') },
    check: checkPaths,
  },
  {
    name: 'three threads open nodes that want one slot',
    threads: {
      w1: openPaths(`/${NODE_A}`, `/${NODE_B}`),
      w2: openPaths(`/${NODE_B}`),
      w3: openPaths(`/${NODE_A}`),
      end: pathsAfter('w1', 'w2', 'w3'),
    },
    check: checkPaths,
  },
  {
    name: 'a thread looks for nodes while others open them',
    threads: {
      w1: openPaths('/a', '/a/b'),
      w2: openPaths(`/${NODE_A}`, `/${NODE_B}`),
      reader: (stage) => {
        const a = stage.findNode(ROOT, 'a');
        const b = a === 0 ? 0 : stage.findNode(a, 'b');
        return {
          a,
          b,
          later: stage.findNode(ROOT, 'a'),
          node: stage.findNode(ROOT, NODE_B),
          none: stage.findNode(ROOT, 'no'),
        };
      },
      end: pathsAfter('w1', 'w2'),
    },
    check: ({ reader, ...results }) => {
      checkPaths(results);
      const { refs } = results.w1 as Got;
      const { a, b, later, node, none } = reader as Record<string, number>;
      ok(a === 0 || (a === refs['/a'] && later === a));
      ok(b === 0 || b === refs['/a/b']);
      ok(node === 0 || node === (results.w2 as Got).refs[`/${NODE_B}`]);
      strictEqual(none, 0);
    },
  },
  {
    name: 'a thread counts while others open nodes and intern names',
    threads: {
      w1: (stage, ...rest) => {
        stage.nameId('mtu');
        return openPaths('/a', '/b')(stage, ...rest);
      },
      w2: (stage, ...rest) => {
        stage.nameId('mtu');
        return openPaths('/b')(stage, ...rest);
      },
      reader: (stage) => [stage.nameCount, stage.arenaBytes, stage.nameCount, stage.arenaBytes],
      end: pathsAfter('w1', 'w2', 'reader'),
    },
    check: ({ reader, ...results }) => {
      checkPaths(results);
      const [names, bytes, laterNames, laterBytes] = reader as [number, number, number, number];
      ok(names <= laterNames && bytes <= laterBytes);
    },
  },
];

const arenas: readonly StageProgram[] = [
  {
    name: 'two threads need new arenas at once, again and again',
    threads: { w1: openInNewArenas('/a', '/b'), w2: openInNewArenas('/a', '/c'), end: pathsAfter('w1', 'w2') },
    check: checkPaths,
  },
  {
    name: 'two threads need the last arena',
    threads: { w1: openPaths('/a'), w2: openPaths('/b'), end: pathsAfter('w1', 'w2') },
    prepare: leaveArenas(1),
    check: (results) => {
      checkPaths(results);
      strictEqual(fullCount(results), 1);
    },
  },
  {
    name: 'of three threads one needs more arenas than there are, the others take all there are',
    threads: {
      w1: openInNewArenas('/a', '/b'),
      w2: askForFour,
      w3: openPaths('/c'),
      end: pathsAfter('w1', 'w2', 'w3'),
    },
    prepare: leaveArenas(3),
    check: ({ w2, ...results }) => {
      checkPaths(results);
      strictEqual(w2, true);
      strictEqual(fullCount(results), 0, 'there was an arena for everybody else');
    },
  },
  {
    name: 'three threads need arenas of different sizes, and there are not enough',
    threads: {
      w1: openPaths('/a'),
      w2: askForFour,
      w3: openInNewArenas('/b', '/c'),
      end: pathsAfter('w1', 'w2', 'w3'),
    },
    prepare: leaveArenas(2),
    check: ({ w2, ...results }) => {
      checkPaths(results);
      strictEqual(w2, true);
    },
  },
];

/** Programs that are small enough for all schedules. */
export const smallPrograms: readonly StageProgram[] = [...names, ...nodes, ...arenas, ...shardPrograms];

const manyNames: Body = intern('a', 'b', 'c', 'd', 'e', 'f');

/** Programs of which some schedules are run, at random. */
export const largePrograms: readonly StageProgram[] = [
  {
    name: 'three threads need arenas again and again, until there are none',
    threads: {
      w1: openInNewArenas('/a', '/b', '/c', '/d'),
      w2: (stage) => [askForFour(stage), askForFour(stage)],
      w3: openInNewArenas('/d', '/c', '/e', '/a'),
      end: pathsAfter('w1', 'w2', 'w3'),
    },
    prepare: leaveArenas(6),
    options: { ...SMALL_STAGE, threads: 8 },
    check: ({ w2, ...results }) => checkPaths(results),
  },
  {
    name: 'three threads intern many names in different orders, while a fourth looks them up',
    threads: {
      w1: manyNames,
      w2: intern('f', 'e', 'd', 'c', 'b', 'a'),
      w3: intern('c', 'a', 'f', 'g', 'b', 'h'),
      reader: (stage) => {
        const guessed = [0, 1, 2].map((id) => guess(stage, id));
        const early = stage.names();
        const texts = ['d', 'a'].map((name) => stage.nameText(stage.nameId(name)));
        return { early, texts, guessed };
      },
      end: namesAfter('w1', 'w2', 'w3', 'reader'),
    },
    options: { ...SMALL_STAGE, maxNames: 8 },
    check: ({ reader, ...results }) => {
      checkNames(results);
      const { names } = results.end as NamesSeen;
      const { early, texts, guessed } = reader as { early: string[]; texts: string[]; guessed: string[] };
      for (const [id, name] of guessed.entries()) ok(name === undefined || name === names[id]);
      for (const [id, name] of Object.entries(early)) strictEqual(names[Number(id)], name);
      deepStrictEqual(texts, ['d', 'a']);
    },
  },
  {
    name: 'three threads open a tree from different ends, two of them in ever new arenas',
    threads: {
      w1: openInNewArenas('/a', '/a/b', '/a/b/c', '/d', '/a/e'),
      w2: openPaths('/d', '/a', '/a/e', '/a/b', '/a/b/f', '/a/b/c'),
      w3: openInNewArenas('/a', '/a/e', '/g', '/a/b', '/d'),
      end: pathsAfter('w1', 'w2', 'w3'),
    },
    options: { ...SMALL_STAGE, threads: 8 },
    check: checkPaths,
  },
  ...largeShardPrograms,
];
