import { ok, strictEqual } from 'node:assert/strict';
import { Finalizer, ShardWriter, Stage } from '#dist/hashstage/index.js';
import { type Body, isFull, ROOT, SHARDS, type StageProgram, type StageSize, useUpArena } from './stage-program.js';

/** What is written into a shard. */
export type Script = (stage: Stage, writer: ShardWriter) => void;

/** What each shard may use. */
const MAX_SHARD_BYTES = 1024;

export function writeShard(shard: number, script: Script): Body {
  return (stage, module) => script(stage, new module.ShardWriter(stage, shard, MAX_SHARD_BYTES));
}

/** The FDT of these shards in hexadecimal digits. */
export function renderShards(...shards: readonly number[]): Body {
  return (stage, module) => rendered(new module.Finalizer(stage), shards);
}

export function rendered(finalizer: Finalizer, shards: readonly number[]): string {
  const target = new Uint8Array(4096);
  const { size } = finalizer.render(shards, 'x', target);
  return Buffer.from(target.subarray(0, size)).toString('hex');
}

export const portMtu: Script = (stage, writer) => writer.u32(writer.open(ROOT, 'port'), stage.nameId('mtu'), 1500);
const portRx: Script = (stage, writer) => writer.u64(writer.open(ROOT, 'port'), stage.nameId('rx'), 1, 2);
export const queueMtu: Script = (stage, writer) => {
  const queue = writer.open(writer.open(ROOT, 'port'), 'queue');
  writer.bytes(queue, stage.nameId('mtu'), Uint8Array.of(1, 2, 3, 4, 5));
};
/** The node's second property does not fit where the first one ended. */
export const portInTwoArenas: Script = (stage, writer) => {
  const port = writer.open(ROOT, 'port');
  writer.u32(port, stage.nameId('mtu'), 1500);
  useUpArena(stage);
  writer.u64(port, stage.nameId('rx'), 1, 2);
};
export const loRx: Script = (stage, writer) => writer.u64(writer.open(ROOT, 'lo'), stage.nameId('rx'), 3, 4);
/** Takes a node out again, and empties another one. */
export const portThenRx: Script = (stage, writer) => {
  queueMtu(stage, writer);
  const port = writer.open(ROOT, 'port');
  writer.remove(port, 'queue');
  writer.u32(port, stage.nameId('mtu'), 1500);
  writer.u64(writer.replace(ROOT, 'port'), stage.nameId('rx'), 1, 2);
};
const removeQueue: Script = (_, writer) => {
  ok(writer.remove(writer.open(ROOT, 'port'), 'queue'));
};
/** Takes a node out whose content is larger than what an emptied fragment keeps, and adds nodes in its room. */
export const portAgain: Script = (stage, writer) => {
  const mtu = stage.nameId('mtu');
  writer.bytes(writer.open(ROOT, 'port'), mtu, new Uint8Array(120).fill(1));
  writer.remove(ROOT, 'port');
  const port = writer.open(ROOT, 'port');
  writer.bytes(port, mtu, Uint8Array.of(1, 2, 3));
  writer.bytes(port, stage.nameId('rx'), new Uint8Array(100).fill(2));
};
/** The same node once more, in the thread that the shard was handed to. */
export const replacePort: Script = (stage, writer) => {
  const port = writer.replace(ROOT, 'port');
  writer.bytes(port, stage.nameId('rx'), new Uint8Array(70).fill(3));
  writer.bytes(port, stage.nameId('mtu'), new Uint8Array(70).fill(4));
};
/** Stops when the shard is full: its last property is not there. */
const untilFull: Script = (stage, writer) => {
  const port = writer.open(ROOT, 'port');
  writer.u32(port, stage.nameId('rx'), 1);
  ok(isFull(() => writer.bytes(port, stage.nameId('mtu'), new Uint8Array(MAX_SHARD_BYTES))));
};
export const tree: Script = (stage, writer) => {
  for (const port of ['port', 'eth', 'lo']) {
    const at = writer.open(ROOT, port);
    writer.u32(writer.open(at, 'queue'), stage.nameId(`mtu-of-${port}`), 1500);
    if (port === 'eth') useUpArena(stage);
    writer.u64(at, stage.nameId('mtu'), 1, 1500);
  }
};
const treeBackwards: Script = (stage, writer) => {
  for (const port of ['lo', 'eth', 'port']) {
    const queue = writer.open(writer.open(ROOT, port), 'queue');
    writer.bytes(queue, stage.nameId(`mac-of-${port}`), Uint8Array.of(1, 2, 3, 4, 5));
    writer.u32(queue, stage.nameId('mtu'), 9000);
  }
};

/** One part of a shard, the threads that its thread awaits, and what that one writes. */
type Part = readonly [shard: number, after: readonly string[], script: Script];

/**
 * Shards are written by the threads `w1`, `w2`, ..., handed on and rendered: in every schedule as if, on the real machine,
 * one script had followed the other.
 */
function shardProgram(
  name: string,
  parts: readonly Part[],
  end: { after: readonly string[]; shards: readonly number[] },
  options: StageSize = SHARDS,
): StageProgram {
  const stage = Stage.create(options);
  for (const [shard, , script] of parts) {
    if (end.shards.includes(shard)) script(stage, new ShardWriter(stage, shard, MAX_SHARD_BYTES));
  }
  const expected = rendered(new Finalizer(stage), end.shards);
  const writers = parts.map(([shard, after, script], index) => [`w${index + 1}`, [after, writeShard(shard, script)]]);
  return {
    name,
    threads: { ...Object.fromEntries(writers), end: [end.after, renderShards(...end.shards)] },
    options,
    check: (results) => strictEqual(results.end, expected),
  };
}

export const shardPrograms: readonly StageProgram[] = [
  shardProgram(
    'two shards of one node are written, then rendered',
    [
      [0, [], portMtu],
      [1, [], queueMtu],
    ],
    { after: ['w1', 'w2'], shards: [0, 1] },
  ),
  shardProgram(
    'three shards of one node are written, then rendered',
    [
      [0, [], portMtu],
      [1, [], queueMtu],
      [2, [], portRx],
    ],
    { after: ['w1', 'w2', 'w3'], shards: [2, 1, 0] },
  ),
  shardProgram(
    'a shard is handed on from thread to thread while another one is written',
    [
      [0, [], portMtu],
      [1, [], queueMtu],
      [0, ['w1'], portRx],
    ],
    { after: ['w2', 'w3'], shards: [0, 1] },
  ),
  shardProgram(
    'a finished shard is rendered while another one is written',
    [
      [0, [], queueMtu],
      [1, [], portMtu],
    ],
    { after: ['w1'], shards: [0] },
  ),
  shardProgram(
    'a node goes on in a new arena while another thread takes arenas',
    [
      [0, [], portInTwoArenas],
      [1, [], queueMtu],
    ],
    { after: ['w1', 'w2'], shards: [0, 1] },
  ),
  shardProgram(
    'a shard takes out and replaces nodes while another one writes the same nodes',
    [
      [0, [], portThenRx],
      [1, [], queueMtu],
    ],
    { after: ['w1', 'w2'], shards: [0, 1] },
  ),
  shardProgram(
    'a node is taken out in the thread that a shard was handed to, while another shard writes the same node',
    [
      [0, [], queueMtu],
      [1, [], queueMtu],
      [0, ['w1'], removeQueue],
    ],
    { after: ['w2', 'w3'], shards: [0, 1] },
  ),
  shardProgram(
    'a shard uses the room of a node again while another one writes the same node',
    [
      [0, [], portAgain],
      [1, [], portMtu],
    ],
    { after: ['w1', 'w2'], shards: [0] },
  ),
  shardProgram(
    'a shard uses room again that another thread freed, while another one uses its own',
    [
      [0, [], portAgain],
      [1, [], portAgain],
      [0, ['w1'], replacePort],
    ],
    { after: ['w2', 'w3'], shards: [0] },
  ),
  shardProgram(
    'a shard is full while another one is written',
    [
      [0, [], untilFull],
      [1, [], portMtu],
    ],
    { after: ['w1', 'w2'], shards: [0, 1] },
  ),
];

export const largeShardPrograms: readonly StageProgram[] = [
  shardProgram(
    'three threads write one node, each front to back, before it is rendered',
    [
      [0, [], queueMtu],
      [1, [], portRx],
      [2, [], loRx],
      [2, ['w3'], queueMtu],
    ],
    { after: ['w1', 'w2', 'w4'], shards: [0, 1] },
  ),
  shardProgram(
    'three threads take out and replace what they wrote, one of them goes on for another',
    [
      [0, [], portAgain],
      [1, [], portAgain],
      [2, [], portThenRx],
      [1, ['w2'], replacePort],
    ],
    { after: ['w1', 'w3', 'w4'], shards: [1] },
  ),
  shardProgram(
    'three threads write a tree, the third shard in two parts, before it is rendered',
    [
      [0, [], tree],
      [1, [], treeBackwards],
      [2, [], portRx],
      [2, ['w3'], loRx],
    ],
    { after: ['w1', 'w2', 'w4'], shards: [0, 1, 2] },
    { ...SHARDS, maxNames: 16 },
  ),
];
