import type { FindingKind } from './program.js';
import type { Mutation } from './shipped.js';

/** A bug that is planted into the shipped modules, and the program of stage-programs.ts that must find it. */
export interface PlantedBug {
  readonly name: string;
  readonly mutations: readonly Mutation[];
  readonly foundBy: string;
  readonly kind: FindingKind;
  /** What the finding must tell. */
  readonly message: RegExp;
}

const STAGE = 'hashstage/stage.js';
const WRITER = 'hashstage/writer.js';
const ROOM = 'hashstage/shard-room.js';

const TWO_NAMES = 'two threads intern two names that want one slot, in opposite order';
const ONE_NAME = 'two threads intern one name';
const TWO_NODES = 'two threads open one node, and below it one together and one each';
const ARENAS = 'two threads need new arenas at once, again and again';
const SHARDS = 'two shards of one node are written, then rendered';
const REUSE = 'a shard uses room again that another thread freed, while another one uses its own';
const GUESS = 'a thread guesses the id of a name that others intern';
const LOOKUP = 'a thread looks names up while others intern some';

/** Of the two places where a record is published, that of names and that of nodes. */
const PUBLISH_NAME =
  /words\[record \+ NAME_LENGTH\] = length;\s+words\[record \+ NAME_HASH\] = hash;\s+const id = (Atomics\.add\(words, HEADER_NAME_COUNT, 1\));\s+words\[record \+ NAME_ID\] = id;\s+found = (Atomics\.compareExchange\(words, slot, 0, record\));\s+if \(found === 0\) \{/g;
const PUBLISH = 'found = Atomics.compareExchange(words, slot, 0, record);';
const TAKE_ARENA = 'const found = Atomics.compareExchange(this.words, HEADER_ARENA_NEXT, start, start + size);';

/** That a word of a node's record is filled in only behind the place where it is published. */
function filledLate(fill: string): Mutation[] {
  return [
    { file: STAGE, find: fill, replace: '' },
    {
      file: STAGE,
      find: /(compareExchange\(words, slot, 0, record\);)(?=\s+if \(found === 0\)\s+return record;)/g,
      replace: `$1 ${fill}`,
    },
  ];
}

export const plantedBugs: readonly PlantedBug[] = [
  {
    name: 'a slot is read without acquire',
    mutations: [
      { file: STAGE, find: 'let found = Atomics.load(words, slot);', replace: 'let found = words[slot];', places: 2 },
    ],
    foundBy: ONE_NAME,
    kind: 'race',
    message: /reads word/,
  },
  {
    name: 'names() reads slots without acquire',
    mutations: [
      {
        file: STAGE,
        find: 'const record = Atomics.load(this.words, slot);',
        replace: 'const record = this.words[slot];',
      },
    ],
    foundBy: LOOKUP,
    kind: 'race',
    message: /'reader' reads word .*\(names/,
  },
  {
    name: 'a name is published before its record is filled',
    mutations: [
      {
        file: STAGE,
        find: PUBLISH_NAME,
        replace: `found = $2;
          words[record + NAME_LENGTH] = length; words[record + NAME_HASH] = hash;
          const id = $1;
          words[record + NAME_ID] = id;
          if (found === 0) {`,
      },
    ],
    foundBy: ONE_NAME,
    kind: 'race',
    message: /#internName/,
  },
  {
    name: 'the parent of a node is filled in after it is published',
    mutations: filledLate('words[record + NODE_PARENT] = parent;'),
    foundBy: TWO_NODES,
    kind: 'race',
    message: /penNode|#node/,
  },
  {
    name: 'the shard for which a node was made is filled in after it is published',
    mutations: filledLate('words[record + NODE_SHARD] = shard;'),
    foundBy: SHARDS,
    kind: 'race',
    message: /#ownFragment/,
  },
  {
    name: 'a slot is taken by a plain store',
    mutations: [
      {
        file: STAGE,
        find: 'found = Atomics.compareExchange(words, slot, 0, record);',
        replace: 'words[slot] = record; found = 0;',
        places: 2,
      },
    ],
    foundBy: ONE_NAME,
    kind: 'race',
    message: /writes/,
  },
  {
    name: 'a slot is taken by an atomic store that overwrites who was first: the slot is lost',
    mutations: [
      {
        file: STAGE,
        find: 'found = Atomics.compareExchange(words, slot, 0, record);',
        replace: 'Atomics.store(words, slot, record); found = 0;',
        places: 2,
      },
    ],
    foundBy: TWO_NODES,
    kind: 'result',
    message: /is there twice|another node/,
  },
  {
    name: 'a slot is looked at once more, then taken by an atomic store',
    mutations: [
      {
        file: STAGE,
        find: 'found = Atomics.compareExchange(words, slot, 0, record);',
        replace: 'found = Atomics.load(words, slot); if (found === 0) Atomics.store(words, slot, record);',
        places: 2,
      },
    ],
    foundBy: ONE_NAME,
    kind: 'result',
    message: /got the id/,
  },
  {
    name: 'who loses a slot goes on to the next one without a look at the winner',
    mutations: [
      {
        file: STAGE,
        find: PUBLISH_NAME,
        replace: `words[record + NAME_LENGTH] = length; words[record + NAME_HASH] = hash;
          const id = $1;
          words[record + NAME_ID] = id;
          if ($2 !== 0) continue;
          {`,
      },
    ],
    foundBy: ONE_NAME,
    kind: 'result',
    message: /there twice|got the id/,
  },
  {
    name: 'who loses a slot keeps its own record',
    mutations: [
      {
        file: STAGE,
        find: /this\.#cursor = record; \/\/ the record[^\n]*\n\s+return found;/g,
        replace: 'return record;',
      },
    ],
    foundBy: ONE_NAME,
    kind: 'result',
    message: /got the id/,
  },
  {
    name: 'the room of a published record is given back',
    mutations: [
      {
        file: STAGE,
        find: PUBLISH,
        replace: '$& if (found === 0) this.#cursor = record;',
        places: 2,
      },
    ],
    foundBy: TWO_NAMES,
    kind: 'race',
    message: /#internName/,
  },
  {
    name: 'the counter of names is not atomic: two names have one id',
    mutations: [
      {
        file: STAGE,
        find: 'Atomics.add(words, HEADER_NAME_COUNT, 1)',
        replace: 'Atomics.load(words, HEADER_NAME_COUNT); Atomics.store(words, HEADER_NAME_COUNT, id + 1)',
      },
    ],
    foundBy: TWO_NAMES,
    kind: 'result',
    message: /got the id|ids were given/,
  },
  {
    name: 'the counter of names is plain',
    mutations: [
      { file: STAGE, find: 'Atomics.add(words, HEADER_NAME_COUNT, 1)', replace: 'words[HEADER_NAME_COUNT]++' },
    ],
    foundBy: TWO_NAMES,
    kind: 'race',
    message: /word 32 /,
  },
  {
    name: 'the next arena is loaded and stored: two threads have one arena',
    mutations: [
      {
        file: STAGE,
        find: TAKE_ARENA,
        replace: 'Atomics.store(this.words, HEADER_ARENA_NEXT, start + size); const found = start;',
      },
    ],
    foundBy: ARENAS,
    kind: 'race',
    message: /packText/,
  },
  {
    name: 'an arena is added, and taken back when there was none: another thread gets one twice',
    mutations: [
      {
        file: STAGE,
        find: 'let start = Atomics.load(this.words, HEADER_ARENA_NEXT);',
        replace: 'let start = Atomics.add(this.words, HEADER_ARENA_NEXT, size);',
      },
      {
        file: STAGE,
        find: 'if (start + size > this.words.length) {',
        replace: '$& Atomics.sub(this.words, HEADER_ARENA_NEXT, size);',
      },
      { file: STAGE, find: TAKE_ARENA, replace: 'const found = start;' },
    ],
    foundBy: 'three threads need arenas of different sizes, and there are not enough',
    kind: 'result',
    message: /got another node/,
  },
  {
    name: 'a lost arena is not asked for again: it is taken all the same',
    mutations: [{ file: STAGE, find: /if \(found === start\)\s+break;\s+start = found;/g, replace: 'break;' }],
    foundBy: ARENAS,
    kind: 'race',
    message: /packText/,
  },
  {
    name: 'there is one arena more than there is',
    mutations: [{ file: STAGE, find: 'start + size > this.words.length', replace: 'start > this.words.length' }],
    foundBy: 'two threads need the last arena',
    kind: 'outside',
    message: /packText/,
  },
  {
    name: 'the parent is not compared: nodes of one name are one node',
    mutations: [
      { file: STAGE, find: 'words[found + NODE_PARENT] === parent &&', replace: '' },
      // So that the parents matter nowhere else.
      {
        file: STAGE,
        find: 'nearPlace(parent, ',
        replace: 'nearPlace(0, ',
      },
    ],
    foundBy: 'two threads open nodes of one name below different parents',
    kind: 'result',
    message: /another node/,
  },
  {
    name: 'the place of a name by id is a plain store',
    mutations: [
      {
        file: STAGE,
        find: 'Atomics.store(words, namesAt + id, record)',
        replace: '(words[namesAt + id] = record)',
      },
    ],
    foundBy: GUESS,
    kind: 'race',
    message: /nameText/,
  },
  {
    name: 'the place of a name by id is read without acquire',
    mutations: [{ file: STAGE, find: 'Atomics.load(this.words, namesAt + id)', replace: 'this.words[namesAt + id]' }],
    foundBy: GUESS,
    kind: 'race',
    message: /nameText/,
  },
  {
    name: 'the place of a name by id is noted before the record is published: perhaps that of another record by then',
    mutations: [
      { file: STAGE, find: /if \(id < nameSlots\)\s+Atomics\.store\(words, namesAt \+ id, record\);/g, replace: '' },
      {
        file: STAGE,
        find: 'words[record + NAME_ID] = id;',
        replace: '$& if (id < nameSlots) Atomics.store(words, namesAt + id, record);',
      },
    ],
    foundBy: GUESS,
    kind: 'race',
    message: /nameText/,
  },
  {
    name: 'a shard takes the fragment behind a record for its own, whoever made the node',
    mutations: [{ file: WRITER, find: ' || words[ref + SHARD] !== this.#shard', replace: '' }],
    foundBy: SHARDS,
    kind: 'race',
    message: /open|#first|#link/,
  },
  {
    name: 'a node that another shard made does not make its shard scattered',
    mutations: [{ file: WRITER, find: /else \{\s+this\.#scatter\(\);/g, replace: 'else {' }],
    foundBy: SHARDS,
    kind: 'result',
    message: /./,
  },
  {
    name: 'a fragment that is taken from the free ones stays in their list: two nodes or two parts of one have it',
    mutations: [{ file: ROOM, find: /words\[list\] = words\[fragment \+ FRAGMENT_NEXT\];/g, replace: '' }],
    foundBy: REUSE,
    kind: 'endless',
    message: /./,
  },
  {
    name: 'the free fragments of all shards are in one list',
    mutations: [
      {
        file: ROOM,
        find: 'return this.#record + SHARD_FREE',
        replace: 'return 48 + SHARD_FREE',
      },
    ],
    foundBy: REUSE,
    kind: 'race',
    message: /ShardRoom|#add|take/,
  },
  {
    name: 'all shards have one record',
    mutations: [{ file: WRITER, find: /\+ shard \* SHARD_WORDS/g, replace: '' }],
    foundBy: SHARDS,
    kind: 'race',
    message: /writer|Shard|#/,
  },
];
