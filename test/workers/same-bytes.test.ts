import fc from 'fast-check';
import { KhoError } from 'khorus';
import { expect, test } from 'vitest';
import { driverRoot, Finalizer, ShardWriter, Stage } from '#dist/hashstage/index.js';
import { PropertyNames } from '#dist/workers/property-names.js';
import { renderStructBlocks } from '#dist/workers/render-struct-blocks.js';
import type { NodeSink } from '#dist/workers/sink.js';
import { StageSink } from '#dist/workers/stage-sink.js';
import { StructBlockSink } from '#dist/workers/struct-block-sink.js';
import { StructBlocks } from '#dist/workers/struct-blocks.js';
import { TreeSink } from '#dist/workers/tree-sink.js';
import { renderPlainTrees } from './plain-renderer.js';

const SHARDS = 3;
const ROOM = 2 ** 18;

/** One call on the node at `path` below the instance's node, which is opened on the way. */
interface Step {
  readonly shard: number;
  readonly path: readonly string[];
  readonly call: 'u32' | 'u64' | 'bytes' | 'open' | 'has' | 'remove' | 'replace';
  readonly property: string;
  readonly child: string;
  readonly value: Uint8Array;
  /** A writer of its own for what follows, as in the next phase. */
  readonly reattach: boolean;
}

const nodeName = fc.constantFrom('a', 'queue0', 'port@1');
const step: fc.Arbitrary<Step> = fc.record({
  shard: fc.nat({ max: SHARDS - 1 }),
  path: fc.array(nodeName, { maxLength: 2 }),
  call: fc.oneof(
    { weight: 1, arbitrary: fc.constantFrom('u32', 'u64', 'bytes') },
    { weight: 1, arbitrary: fc.constantFrom('open', 'has', 'remove', 'replace') },
  ) as fc.Arbitrary<Step['call']>,
  property: fc.constantFrom('x', 'y', 'a', 'tx-bytes', 'rx-bytes', 'a-name-of-its-own'),
  child: nodeName,
  value: fc.uint8Array({ maxLength: 200 }),
  reattach: fc.boolean(),
});

/** What a call came to: its answer, or the code of its error. */
function outcome(sink: NodeSink, { path, call, property, child, value }: Step): unknown {
  try {
    const node = path.reduce((parent, part) => sink.open(parent, part), sink.root);
    switch (call) {
      case 'u32':
        return sink.u32(node, sink.nameId(property), value.length);
      case 'u64':
        return sink.u64(node, sink.nameId(property), value.length, 7);
      case 'bytes':
        return sink.bytes(node, sink.nameId(property), value);
      case 'open':
        return void sink.open(node, child);
      case 'replace':
        return void sink.replace(node, child);
      default:
        return sink[call](node, child);
    }
  } catch (error) {
    if (error instanceof KhoError) return error.code;
    throw error;
  }
}

function blobOf(render: () => Uint8Array): Uint8Array | string {
  try {
    return render();
  } catch (error) {
    if (error instanceof KhoError) return error.code;
    throw error;
  }
}

test('the stage, the struct blocks and plain trees answer every call alike, charge alike, and render the same bytes', () => {
  const counts = { rendered: 0, refused: 0, removed: 0 };
  const properties = new Map([['compatible', new TextEncoder().encode('x-v1\0')]]);
  const frame = { name: '', properties, children: new Map(), shards: [0, 1, 2] };
  fc.assert(
    fc.property(fc.array(step, { maxLength: 50 }), fc.integer({ min: 60, max: 4000 }), (steps, maxBytes) => {
      const stage = Stage.create({ shardCount: SHARDS, maxBytes: SHARDS * 4096, threads: 1, maxNames: 64 });
      const shards = [0, 1, 2];
      const stageSink = (index: number) => new StageSink(stage, { index, driver: 0, instance: 'i', maxBytes });
      const staged = shards.map(stageSink);
      const names = new PropertyNames();
      const trees = shards.map(() => new TreeSink(names, 'i', maxBytes));
      const blocks = new StructBlocks(0);
      const direct = shards.map(() => new StructBlockSink(blocks, 'i', maxBytes));
      for (const each of steps) {
        if (each.reattach) staged[each.shard] = stageSink(each.shard);
        const answer = outcome(staged[each.shard] as NodeSink, each);
        expect(answer).toEqual(outcome(trees[each.shard] as NodeSink, each));
        expect(answer).toEqual(outcome(direct[each.shard] as NodeSink, each));
        if (answer === true && each.call === 'remove') counts.removed++;
        const used = new ShardWriter(stage, each.shard, maxBytes).usedBytes;
        expect(used).toBe(trees[each.shard]?.usedBytes);
        expect(used).toBe(direct[each.shard]?.usedBytes);
      }
      const tree = blobOf(() => renderPlainTrees(frame, (shard) => (trees[shard] as TreeSink).tree));
      const room = new Uint8Array(ROOM).fill(0xee);
      const copy = blobOf(() => {
        const { size } = renderStructBlocks(blocks, frame, (shard) => direct[shard], room);
        return room.subarray(0, size);
      });
      const target = new Uint8Array(ROOM).fill(0x77);
      const blob = blobOf(() => target.subarray(0, new Finalizer(stage).render(shards, 'x-v1', target).size));
      if (typeof blob === 'string') {
        counts.refused++;
        // Where two things are wrong at once, either may be told.
        expect([blob, tree, copy].every((code) => code === 'KHO_EEXIST' || code === 'KHO_EINVAL')).toBe(true);
      } else {
        counts.rendered++;
        expect(Buffer.from(blob).equals(Buffer.from(tree as Uint8Array))).toBe(true);
        expect(Buffer.from(blob).equals(Buffer.from(copy as Uint8Array))).toBe(true);
      }
    }),
    { numRuns: 1500 },
  );
  expect(counts.rendered).toBeGreaterThan(500);
  expect(counts.refused).toBeGreaterThan(20);
  expect(counts.removed).toBeGreaterThan(20);
});

test('a node of several shards keeps what the others wrote when one takes its part out', () => {
  const stage = Stage.create({ shardCount: 2, maxBytes: 8192, threads: 1 });
  const [first, second] = [0, 1].map((shard) => new ShardWriter(stage, shard, 4096)) as [ShardWriter, ShardWriter];
  for (const [index, writer] of [first, second].entries()) {
    const node = writer.open(driverRoot(0), 'shared');
    writer.u32(node, stage.nameId(`from-${index}`), index);
  }
  expect(first.remove(driverRoot(0), 'shared')).toBe(true);
  expect([first.has(driverRoot(0), 'shared'), second.has(driverRoot(0), 'shared')]).toEqual([false, true]);
  const target = new Uint8Array(4096);
  const { size, nodes, properties } = new Finalizer(stage).render([0, 1], 'x', target);
  expect([nodes, properties]).toEqual([2, 2]);
  expect(Buffer.from(target.subarray(0, size)).toString('latin1')).not.toContain('from-0');
});

test('a node is not to be written any more once it was taken out, until it is opened again', () => {
  const stage = Stage.create({ shardCount: 1, maxBytes: 8192, threads: 1 });
  const writer = new ShardWriter(stage, 0, 4096);
  const parent = writer.open(driverRoot(0), 'parent');
  const child = writer.open(parent, 'child');
  writer.remove(driverRoot(0), 'parent');
  expect(() => writer.u32(child, stage.nameId('x'), 1)).toThrow(expect.objectContaining({ code: 'KHO_EINVAL' }));
  expect(writer.open(parent, 'child')).toBe(child);
});
