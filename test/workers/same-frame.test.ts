import fc from 'fast-check';
import { KhoError } from 'khorus';
import { FdtReader, TreeNode } from 'khorus/fdt';
import { expect, test } from 'vitest';
import { type FdtFrame, Finalizer, type RenderedFrame, Stage } from '#dist/hashstage/index.js';
import { renderStructBlocks } from '#dist/workers/render-struct-blocks.js';
import type { NodeSink } from '#dist/workers/sink.js';
import { StageSink } from '#dist/workers/stage-sink.js';
import { StructBlockSink } from '#dist/workers/struct-block-sink.js';
import { StructBlocks } from '#dist/workers/struct-blocks.js';

const ROOM = 2 ** 16;
const MAX_BYTES = 4096;
const DRIVERS = ['alpha', 'beta'] as const;
/** Two shards a driver: of one instance, or of two. */
const SHARDS = [0, 1, 2, 3];

interface Write {
  readonly shard: number;
  readonly child: string | undefined;
  readonly name: string;
  readonly value: Uint8Array;
}

const write: fc.Arbitrary<Write> = fc.record({
  shard: fc.nat({ max: 3 }),
  child: fc.option(fc.constantFrom('port', 'queue0'), { nil: undefined }),
  name: fc.constantFrom('x', 'y', 'start', 'compatible', 'a-name-of-its-own'),
  value: fc.uint8Array({ maxLength: 40 }),
});

/** A frame with a core node of two levels, two drivers, and what is inserted into some of their instances. */
function frameOf(core: readonly Uint8Array[], insert: ReadonlyMap<string, Uint8Array> | undefined): FdtFrame {
  const node = new TreeNode('core-node');
  for (const [index, value] of core.entries()) node.addProperty(`core-${index}`, value);
  node.addChild('below').addProperty('start', new Uint8Array(8).fill(7));
  const drivers = DRIVERS.map((name, index): [string, FdtFrame] => [
    name,
    {
      name,
      properties: new Map([['compatible', new TextEncoder().encode(`${name}-v1\0`)]]),
      children: new Map(),
      shards: [index * 2, index * 2 + 1],
      ...(insert && { insert: { name: 'mem', values: insert } }),
    },
  ]);
  const properties = new Map([['compatible', new TextEncoder().encode('kho-v1\0')]]);
  return { name: '', properties, children: new Map<string, FdtFrame>([['core-node', node], ...drivers]) };
}

/** Both kinds of sinks, after the same calls; those that one refuses, the other refuses too. */
function written(writes: readonly Write[], instanceOf: (shard: number) => string) {
  const stage = Stage.create({ shardCount: 4, maxBytes: 4 * MAX_BYTES, threads: 1, maxNames: 64 });
  const staged = SHARDS.map(
    (index) =>
      new StageSink(stage, { index, driver: Math.floor(index / 2), instance: instanceOf(index), maxBytes: MAX_BYTES }),
  );
  const blocks = new StructBlocks(0);
  const direct = SHARDS.map((index) => new StructBlockSink(blocks, instanceOf(index), MAX_BYTES));
  const call = (sink: NodeSink, { child, name, value }: Write): boolean => {
    try {
      sink.bytes(child === undefined ? sink.root : sink.open(sink.root, child), sink.nameId(name), value);
      return true;
    } catch (error) {
      if (error instanceof KhoError) return false;
      throw error;
    }
  };
  for (const one of writes) {
    const [a, b] = [staged[one.shard], direct[one.shard]] as [NodeSink, NodeSink];
    expect(call(a, one)).toBe(call(b, one));
  }
  return {
    finalize: (frame: FdtFrame, room: number) => {
      const target = new Uint8Array(room).fill(0x77);
      const rendered = new Finalizer(stage).renderFrame(frame, target);
      return { rendered, bytes: target.subarray(0, rendered.size) };
    },
    direct: (frame: FdtFrame, room: number) => {
      const target = new Uint8Array(room).fill(0xee);
      const rendered = renderStructBlocks(blocks, frame, (shard) => direct[shard], target);
      return { rendered, bytes: target.subarray(0, rendered.size) };
    },
  };
}

function attempt(render: () => { rendered: RenderedFrame; bytes: Uint8Array }) {
  try {
    return render();
  } catch (error) {
    if (error instanceof KhoError) return { code: error.code, driver: error.details.driver };
    throw error;
  }
}

test('stage and struct blocks render any frame to the same bytes, in exactly the same room', () => {
  const counts = { rendered: 0, refused: 0 };
  fc.assert(
    fc.property(
      fc.array(write, { maxLength: 30 }),
      fc.array(fc.uint8Array({ maxLength: 9 }), { maxLength: 3 }),
      fc.option(fc.dictionary(fc.constantFrom('i0', 'i1', 'nobody'), fc.uint8Array({ maxLength: 33 })), {
        nil: undefined,
      }),
      fc.boolean(),
      (writes, core, values, shared) => {
        const sinks = written(writes, (shard) => (shared ? 'i0' : `i${shard % 2}`));
        const frame = frameOf(core, values && new Map(Object.entries(values)));
        const staged = attempt(() => sinks.finalize(frame, ROOM));
        const direct = attempt(() => sinks.direct(frame, ROOM));
        if ('code' in staged) {
          counts.refused++;
          expect(direct).toEqual(staged);
          expect(staged).toMatchObject({ code: 'KHO_EEXIST', driver: expect.stringMatching(/^(alpha|beta)$/) });
          return;
        }
        counts.rendered++;
        expect(direct).toEqual({ rendered: staged.rendered, bytes: expect.anything() });
        const { bytes } = direct as typeof staged;
        expect(Buffer.from(staged.bytes).equals(bytes)).toBe(true);
        const { root } = FdtReader.open(bytes, { strict: true });
        expect([...root.children()].map(({ name }) => name)).toEqual(['core-node', ...DRIVERS]);
        for (const [instance, value] of Object.entries(values ?? {})) {
          const node = root.get('alpha').child(instance);
          if (node !== undefined) expect([...node.properties()][0]).toMatchObject({ name: 'mem', value });
        }
        const { size, nodes, properties, parts } = staged.rendered;
        expect([...parts.keys()]).toEqual([...DRIVERS]);
        const sum = (of: 'nodes' | 'properties') => [...parts.values()].reduce((total, part) => total + part[of], 0);
        // The root, and the two nodes of the core with the one property of the inner one.
        expect([nodes, properties]).toEqual([sum('nodes') + 3, sum('properties') + core.length + 2]);
        for (const render of [sinks.finalize, sinks.direct]) {
          expect(attempt(() => render(frame, size))).toMatchObject({ rendered: { size } });
          expect(attempt(() => render(frame, size - 1))).toEqual({ code: 'KHO_ENOSPC', driver: undefined });
        }
      },
    ),
    { numRuns: 400 },
  );
  expect(counts.rendered).toBeGreaterThan(200);
  expect(counts.refused).toBeGreaterThan(10);
});

test("a shard that writes the property which is the core's to insert is refused, whatever node it wrote it to", () => {
  const value = Uint8Array.of(1);
  const sinks = written([{ shard: 2, child: 'port', name: 'mem', value }], (shard) => `i${shard % 2}`);
  const refused = { code: 'KHO_EEXIST', driver: 'beta' };
  for (const values of [new Map(), new Map([['i0', value]])]) {
    expect(attempt(() => sinks.finalize(frameOf([], values), ROOM))).toEqual(refused);
    expect(attempt(() => sinks.direct(frameOf([], values), ROOM))).toEqual(refused);
  }
  expect(attempt(() => sinks.finalize(frameOf([], undefined), ROOM))).not.toHaveProperty('code');
});
