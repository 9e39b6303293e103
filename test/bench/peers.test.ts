import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { FdtReader, formatDts } from 'khorus/fdt';
import { expect, test } from 'vitest';
import { driverRoot, Finalizer, ShardWriter, Stage } from '#dist/hashstage/index.js';
import { INSTANCE_NAMES, INSTANCES, type Load, NAMES, writeLoad } from '../../bench/load.js';
import { blobTarget, instanceBytes } from '../../bench/load-size.js';
import { DirectWriter } from '../../bench/peers/direct-writer.js';
import { LibfdtProgram, LibfdtSequential } from '../../bench/peers/libfdt-sequential.js';
import { LockedTable } from '../../bench/peers/locked-table.js';
import { type ObjectBatch, ObjectContext, PropertyObjectContext, writeObjects } from '../../bench/peers/object-tree.js';
import { clearTable, createTable, PropertyTable, SLOT_COUNT, SLOTS_AT } from '../../bench/peers/property-table.js';
import { SequentialContext } from '../../bench/peers/sequential-context.js';
import { StreamWriter, writeStreams } from '../../bench/peers/wire-stream.js';
import { ReusableStage } from '../../bench/reusable-stage.js';
import { writeDirectly } from '../../bench/variants/direct.js';
import { judgedTest } from '../fdt/libfdt.js';
import { temporaryDirectory } from '../support/run.js';

// More than one batch of objects.
const LOAD: Load = { nodes: 1205, properties: 10, names: 'strings', workSteps: 0 };
const room = () => blobTarget(LOAD);

function fdtOf(write: (writer: DirectWriter) => void): Uint8Array {
  const target = room();
  const writer = new DirectWriter(target);
  writer.beginNode('');
  write(writer);
  writer.endNode();
  return target.subarray(0, writer.finish());
}

function direct(load: Load): Uint8Array {
  const target = room();
  return target.subarray(0, writeDirectly(target, load));
}

/** The tree as text, without the root's `compatible`, which only the finalizer writes. */
const dtsOf = (blob: Uint8Array): string =>
  formatDts(FdtReader.open(blob, { strict: true })).replace(/^\tcompatible = .*\n/m, '');

/** The first line in which a tree is not the expected one. (The difference as a whole would take minutes to print.) */
function firstDifference(blob: Uint8Array): string | undefined {
  const lines = dtsOf(blob).split('\n');
  const wanted = expected.split('\n');
  const at = lines.findIndex((line, index) => line !== wanted[index]);
  if (at < 0 && lines.length === wanted.length) return undefined;
  return `line ${at + 1} is '${lines[at]}', expected '${wanted[at]}'`;
}

/** Once for all tests: a handover's way, the stage and its finalizer. */
const expected = (() => {
  const shards = INSTANCE_NAMES.map((_, shard) => shard);
  const maxBytes = instanceBytes(LOAD);
  const stage = Stage.create({ shardCount: INSTANCES, maxBytes: maxBytes * INSTANCES, threads: 1 });
  for (const [instance, name] of INSTANCE_NAMES.entries()) {
    const writer = new ShardWriter(stage, instance, maxBytes);
    const root = writer.open(driverRoot(0), name);
    const node = (text: string) => {
      const ref = writer.open(root, text);
      return {
        u64: (property: string | number, value: number) => writer.u64(ref, stage.nameId(String(property)), 0, value),
      };
    };
    writeLoad(
      {
        node,
        name: () => {
          throw new Error('strings');
        },
      },
      LOAD,
      instance,
    );
  }
  const target = room();
  const { size } = new Finalizer(stage).render(shards, 'load-v1', target);
  return dtsOf(target.subarray(0, size));
})();

test('the direct writer makes the tree that the stage makes, with names as text and by id', () => {
  expect(firstDifference(direct(LOAD))).toBeUndefined();
  expect(firstDifference(direct({ ...LOAD, names: 'ids' }))).toBeUndefined();
});

test.each([
  ['a node', ObjectContext, 2],
  ['a property', PropertyObjectContext, 13],
] as const)('an object for each %s: the same tree, in whatever order the batches come', (_, Context, batchesEach) => {
  const batches: ObjectBatch[] = [];
  for (const instance of [3, 1, 0, 2, 9, 8, 7, 6, 5, 4]) {
    const context = new Context(`load${instance}`, (batch) => void batches.push(structuredClone(batch)));
    writeLoad(context, LOAD, instance);
    context.end();
  }
  expect(batches).toHaveLength(batchesEach * INSTANCES);
  expect(firstDifference(fdtOf((writer) => writeObjects(writer, INSTANCE_NAMES, batches)))).toBeUndefined();
});

test('streams of two threads make the same tree, though each has name ids of its own', () => {
  const streams = [
    [1, 3, 5, 7, 9],
    [8, 6, 4, 2, 0],
  ].map((instances) => {
    const writer = new StreamWriter(new ArrayBuffer(room().length));
    for (const instance of instances) {
      writer.beginInstance(`load${instance}`);
      const context = new SequentialContext(writer);
      writeLoad(context, LOAD, instance);
      context.end();
    }
    return writer.finish();
  });
  expect(firstDifference(fdtOf((writer) => writeStreams(writer, INSTANCE_NAMES, streams)))).toBeUndefined();
});

judgedTest("libfdt's sequential writer makes the same tree, with shared names and without", async () => {
  const program = LibfdtProgram.compile();
  if (typeof program === 'string') throw new Error(program);
  using _program = program;
  using libfdt = new LibfdtSequential(program.file);
  for (const dedup of [true, false]) {
    const file = join(temporaryDirectory(), 'blob');
    const { nodes, properties } = LOAD;
    await libfdt.build({ instances: INSTANCES, nodes, properties, names: NAMES.length, dedup, file });
    const blob = readFileSync(file);
    expect(firstDifference(blob)).toBeUndefined();
    expect(blob.length > 1.2 * direct(LOAD).length).toBe(!dedup);
  }
});

test.each([
  ['by compare-and-swap', PropertyTable],
  ['under one lock', LockedTable],
] as const)('the table of properties %s holds each property once, and refuses a second of the name', (_, Table) => {
  const nodes = 500;
  const buffer = createTable(nodes * 10, nodes + 1, 2);
  const words = new Int32Array(buffer);
  for (let round = 0; round < 2; round++) {
    // Two writers, as two threads would have them.
    const tables = [new Table(buffer), new Table(buffer)];
    const refs = tables.map((table) => Array.from({ length: nodes / 2 }, (_, index) => table.node(0, `node${index}`)));
    for (let index = 0; index < nodes / 2; index++) {
      for (let name = 0; name < 10; name++) {
        for (const [which, table] of tables.entries()) table.u64(refs[which]?.[index] ?? 0, name, which, index);
      }
    }
    const slots = words.subarray(SLOTS_AT, SLOTS_AT + (words[SLOT_COUNT] ?? 0));
    const found = Array.from(slots)
      .filter((ref) => ref !== 0)
      .map((ref) => [...words.subarray(ref, ref + 4)].join());
    const wanted = refs.flatMap((list, which) =>
      list.flatMap((ref, index) => Array.from({ length: 10 }, (_, name) => [ref, name, index, which].join())),
    );
    expect(found.sort()).toEqual(wanted.sort());
    expect(() => tables[1]?.u64(refs[0]?.[7] ?? 0, 3, 0, 0)).toThrow('the property is there already');
    clearTable(words);
  }
});

test('a stage that was rewound is as empty as a new one, and can be filled again', () => {
  const reusable = new ReusableStage({ shardCount: 1, maxBytes: 2 ** 16, threads: 1 });
  const blobs = [1, 2].map((value) => {
    const stage = reusable.rewind();
    expect([stage.nameCount, stage.arenaBytes]).toEqual([0, 0]);
    const writer = new ShardWriter(stage, 0, 2 ** 16);
    for (let index = 0; index < 100; index++) {
      writer.u32(writer.open(driverRoot(0), `node${index}`), stage.nameId('value'), 7);
    }
    const target = new Uint8Array(2 ** 16).fill(value);
    return Buffer.from(target.subarray(0, new Finalizer(stage).render([0], 'load-v1', target).size));
  });
  expect(blobs[0]).toEqual(blobs[1]);
});
