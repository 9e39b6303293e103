import fc from 'fast-check';
import { KhoError } from 'khorus';
import { FdtReader } from 'khorus/fdt';
import { describe, expect, test } from 'vitest';
import type { FdtFrame } from '#dist/hashstage/index.js';
import { PropertyNames } from '#dist/workers/property-names.js';
import { renderStructBlocks } from '#dist/workers/render-struct-blocks.js';
import type { NodeSink } from '#dist/workers/sink.js';
import { StructBlockSink } from '#dist/workers/struct-block-sink.js';
import { StructBlocks } from '#dist/workers/struct-blocks.js';
import { TreeSink } from '#dist/workers/tree-sink.js';
import { renderPlainTrees } from './plain-renderer.js';

/** The instances of the shards; those of one instance stand together. */
const INSTANCES = ['vm0', 'vm1', 'vm1', 'vm1', 'vm@7'];

/** Two sinks of one shard, of which one is the oracle, and where the callback is in it. */
interface Shard {
  readonly sink: StructBlockSink;
  readonly oracle: TreeSink;
  /** By ref, which both sinks number in the order of opening: the parent. */
  readonly parents: number[];
  node: number;
  /** How many properties of their own the last opened node got. */
  properties: number;
}

function shardsOf(blocks: StructBlocks, maxBytes: number): Shard[] {
  const names = new PropertyNames();
  return INSTANCES.map((instance) => ({
    sink: new StructBlockSink(blocks, instance, maxBytes),
    oracle: new TreeSink(names, instance, maxBytes),
    parents: [0],
    node: 0,
    properties: 0,
  }));
}

interface Step {
  readonly call: 'u32' | 'u64' | 'bytes' | 'open' | 'up' | 'has' | 'remove' | 'replace' | 'made-up name';
  /** The call is for a node that is opened so many before the last one; without it, for the one where the callback is. */
  readonly back: number | undefined;
  /** How many shards further. */
  readonly shard: number;
  /** Without it, a name that the node has not. */
  readonly property: string | undefined;
  readonly child: string;
  readonly value: Uint8Array;
}

/** What breaks the order is `rare`, against a weight of 60; at 0 everything is written front to back. */
function stepOf(rare: number): fc.Arbitrary<Step> {
  const usually = <T>(value: T, unusual: fc.Arbitrary<T>): fc.Arbitrary<T> =>
    fc.oneof({ weight: 60, arbitrary: fc.constant(value) }, { weight: rare, arbitrary: unusual });
  return fc.record({
    call: fc.oneof(
      { weight: 30, arbitrary: fc.constantFrom('u32', 'u64', 'bytes') },
      { weight: 30, arbitrary: fc.constantFrom('open', 'open', 'up', 'has') },
      { weight: rare, arbitrary: fc.constantFrom('remove', 'replace', 'made-up name') },
    ) as fc.Arbitrary<Step['call']>,
    back: usually<number | undefined>(undefined, fc.nat({ max: 6 })),
    shard: fc.oneof({ weight: 60, arbitrary: fc.constant(0) }, { weight: 2 + rare, arbitrary: fc.nat({ max: 4 }) }),
    property: usually<string | undefined>(undefined, fc.constantFrom('own-0', 'own-1', 'x', 'y')),
    child: fc.constantFrom('a', 'b', 'queue0', 'queue1', 'queue2', 'port', 'port@1', 'port@2', 'a-longer-name'),
    value: fc.uint8Array({ maxLength: 150 }),
  });
}

/** What a call came to: its answer, or its error. */
function outcome(sink: NodeSink, node: number, call: Step['call'], property: string, { child, value }: Step): unknown {
  try {
    switch (call) {
      case 'u32':
        return sink.u32(node, sink.nameId(property), value.length);
      case 'u64':
        return sink.u64(node, sink.nameId(property), 0xfedcba98, value.length);
      case 'bytes':
        return sink.bytes(node, sink.nameId(property), value);
      case 'made-up name':
        return sink.u32(node, value.length % 2 === 0 ? 0.5 : 1000, 1);
      case 'up':
        return undefined;
      default:
        return sink[call](node, child);
    }
  } catch (error) {
    if (error instanceof KhoError) return `${error.code} ${error.message}`;
    throw error;
  }
}

/** Runs the steps in both sinks of each shard. */
function play(shards: readonly Shard[], steps: readonly Step[]): void {
  let current = 0;
  for (const step of steps) {
    current = (current + step.shard) % shards.length;
    const shard = shards[current] as Shard;
    const { sink, oracle, parents } = shard;
    const last = parents.length - 1;
    const node = step.back === undefined ? shard.node : Math.max(0, last - step.back);
    const isBehind = step.back === undefined && node !== last && ['u32', 'u64', 'bytes'].includes(step.call);
    const call = isBehind ? 'open' : step.call;
    const property = step.property ?? `own-${shard.properties++}`;
    const answer = outcome(sink, node, call, property, step);
    expect(answer).toEqual(outcome(oracle, node, call, property, step));
    expect(sink.usedBytes).toBe(oracle.usedBytes);
    if (call === 'up') shard.node = parents[node] as number;
    if (answer !== parents.length) continue;
    parents.push(node);
    shard.node = answer;
    shard.properties = 0;
  }
}

function blobOf(render: () => Uint8Array): Uint8Array | string {
  try {
    return render();
  } catch (error) {
    if (error instanceof KhoError) return `${error.code} ${error.message}`;
    throw error;
  }
}

/** A frame whose root has a compatible, and these shards. */
function frameOf(shards: readonly Shard[]): FdtFrame {
  return { name: '', properties: compatible('x-v1'), children: new Map(), shards: [...shards.keys()] };
}

function compatible(value: string): Map<string, Uint8Array> {
  return new Map([['compatible', Buffer.from(`${value}\0`)]]);
}

function render(
  blocks: StructBlocks,
  shards: readonly Shard[],
  { frame = frameOf(shards), room = 2 ** 16 } = {},
): Uint8Array | string {
  const target = new Uint8Array(2 ** 16).fill(0x77).subarray(0, room);
  return blobOf(() =>
    target.subarray(0, renderStructBlocks(blocks, frame, (shard) => shards[shard]?.sink, target).size),
  );
}

function renderOracle(shards: readonly Shard[], frame = frameOf(shards)): Uint8Array | string {
  return blobOf(() => renderPlainTrees(frame, (shard) => (shards[shard] as Shard).oracle.tree));
}

const hex = (blob: Uint8Array | string) => (typeof blob === 'string' ? blob : Buffer.from(blob).toString('hex'));

describe('a shard that is written to the struct blocks', () => {
  for (const [how, rare, least] of [
    ['front to back', 0, { blocks: 1400, trees: 0, rendered: 100, refused: 100 }],
    ['out of order now and then', 1, { blocks: 1000, trees: 200, rendered: 100, refused: 100 }],
    ['in any order', 30, { blocks: 0, trees: 1500, rendered: 100, refused: 100 }],
  ] as const) {
    test(`answers, charges and fails as the plain tree does, and renders the same bytes, ${how}`, () => {
      const counts = { blocks: 0, trees: 0, rendered: 0, refused: 0 };
      fc.assert(
        fc.property(
          fc.array(stepOf(rare), { maxLength: 120, size: 'max' }),
          fc.integer({ min: 40, max: 8000 }),
          fc.nat({ max: 120 }),
          (steps, maxBytes, between) => {
            const blocks = new StructBlocks(0);
            const shards = shardsOf(blocks, maxBytes);
            play(shards, steps.slice(0, between));
            render(blocks, shards); // whatever comes of it, the shards go on as if nothing had been
            play(shards, steps.slice(between));
            for (const { sink } of shards) counts[sink.block === undefined ? 'trees' : 'blocks']++;
            const blob = render(blocks, shards);
            expect(hex(blob)).toBe(hex(renderOracle(shards)));
            expect(hex(render(blocks, shards))).toBe(hex(blob));
            if (typeof blob === 'string') {
              counts.refused++;
              return;
            }
            counts.rendered++;
            expect(hex(render(blocks, shards, { room: blob.length }))).toBe(hex(blob));
            expect(render(blocks, shards, { room: blob.length - 1 })).toMatch(/^KHO_ENOSPC the FDT has \d+ bytes/);
          },
        ),
        { numRuns: 500 },
      );
      for (const kind of ['blocks', 'trees', 'rendered', 'refused'] as const) {
        expect(counts[kind]).toBeGreaterThanOrEqual(least[kind]);
      }
    });
  }

  test('stays in wire form when its nodes were begun in one phase and are continued in the next', () => {
    const blocks = new StructBlocks(0);
    const shards = shardsOf(blocks, 4096);
    for (const phase of ['early', 'late']) {
      for (const { sink, oracle } of shards) {
        for (const each of [sink, oracle]) {
          const node = each.open(each.root, 'state');
          each.u32(node, each.nameId(`${phase}-of-all`), 1);
          if (phase === 'late') each.u32(each.open(node, 'below'), each.nameId('of-all'), 2);
        }
      }
    }
    expect(shards.map(({ sink }) => sink.block === undefined)).toEqual([false, false, false, false, false]);
    expect(shards[0]?.sink.block?.depth).toBe(2);
    const single = [shards[0] as Shard];
    expect(hex(render(blocks, single))).toBe(hex(renderOracle(single)));
  });

  test('becomes a tree at last when it is written by turns with another', () => {
    const blocks = new StructBlocks(0);
    const shards = shardsOf(blocks, 4096).slice(0, 2);
    for (let turn = 0; turn < 20; turn++) {
      for (const { sink, oracle } of shards) {
        for (const each of [sink, oracle]) each.u32(each.open(each.root, `node${turn}`), each.nameId('turn'), turn);
      }
    }
    // Once one is a tree, nobody takes the end of the blocks from the other any more.
    expect(shards.map(({ sink }) => sink.block === undefined)).toEqual([true, false]);
    for (let again = 0; again < 100; again++) render(blocks, shards);
    expect(blocks.words.length).toBeLessThan(2048); // what is rendered of a tree does not stay
    expect(hex(render(blocks, shards))).toBe(hex(renderOracle(shards)));
  });

  test('needs no tree for what does not break the order', () => {
    const sink = new StructBlockSink(new StructBlocks(0), 'vm0', 4096);
    const first = sink.open(sink.root, 'first');
    const second = sink.open(sink.root, 'second');
    sink.u32(sink.replace(second, 'below'), sink.nameId('x'), 1);
    expect([sink.open(sink.root, 'first'), sink.open(sink.root, 'second')]).toEqual([first, second]);
    expect([sink.has(sink.root, 'first'), sink.has(first, 'below'), sink.has(second, 'below')]).toEqual([
      true,
      false,
      true,
    ]);
    expect(sink.remove(first, 'below')).toBe(false);
    expect(sink.block).toBeDefined();
    expect(sink.remove(second, 'below')).toBe(true);
    expect(sink.block).toBeUndefined();
  });

  test('of many nodes and names is found whole, in memory that had to grow', () => {
    const blocks = new StructBlocks(0);
    const shards = shardsOf(blocks, 2 ** 20).slice(0, 1);
    for (let index = 0; index < 3000; index++) {
      for (const { sink, oracle } of shards) {
        for (const each of [sink, oracle]) {
          const node = each.open(each.root, `node${index}`);
          expect(each.open(each.root, `node${index}`)).toBe(node);
          each.u64(node, each.nameId(`name-${index % 500}`), index, 1);
        }
      }
    }
    expect(shards[0]?.sink.usedBytes).toBe(shards[0]?.oracle.usedBytes);
    expect([...blocks.chain(shards[0]?.sink.block?.names ?? 0)]).toHaveLength(500);
    expect([...blocks.chain(shards[0]?.sink.block?.children ?? 0)]).toHaveLength(3000);
    const target = new Uint8Array(2 ** 18);
    const rendered = renderStructBlocks(blocks, frameOf(shards), (shard) => shards[shard]?.sink, target);
    expect(rendered).toMatchObject({ nodes: 3002, properties: 3001 });
    expect(hex(target.subarray(0, rendered.size))).toBe(hex(renderOracle(shards)));
  });
});

describe('an FDT of struct blocks', () => {
  /** One instance of two shards and one of one, which the shards of the first have in common with nobody. */
  function written() {
    const blocks = new StructBlocks(0);
    const shards = shardsOf(blocks, 4096).slice(0, 3);
    for (const [index, { sink, oracle }] of shards.entries()) {
      for (const each of [sink, oracle]) {
        each.bytes(each.root, each.nameId(`of-${index}`), Uint8Array.of(index));
        each.u32(each.open(each.open(each.root, `child${index}`), 'below'), each.nameId('depth'), 2);
        each.u32(each.open(each.root, `last${index}`), each.nameId('depth'), 1);
      }
    }
    return { blocks, shards };
  }

  test('puts what all shards say of their instance before what is below it', () => {
    const { blocks, shards } = written();
    expect(shards.every(({ sink }) => sink.block !== undefined)).toBe(true);
    const blob = render(blocks, shards);
    expect(hex(blob)).toBe(hex(renderOracle(shards)));
    const { root } = FdtReader.open(blob as Uint8Array, { strict: true });
    const instance = root.get('vm1');
    expect([...instance.properties()].map(({ name }) => name)).toEqual(['of-1', 'of-2']);
    expect([...instance.children()].map(({ name }) => name)).toEqual(['child1', 'last1', 'child2', 'last2']);
  });

  test('can hold one instance of a driver alone', () => {
    const { blocks, shards } = written();
    for (const part of [shards.slice(0, 1), shards.slice(1)]) {
      const blob = render(blocks, part);
      expect(hex(blob)).toBe(hex(renderOracle(part)));
      const { root } = FdtReader.open(blob as Uint8Array, { strict: true });
      expect([...root.children()].map(({ name }) => name)).toEqual([part[0]?.sink.instance]);
    }
  });

  /** Two drivers below a root that has a node and a property of its own; `mem` is put into some of their instances. */
  function twoDrivers(name: string): FdtFrame {
    const value = Uint8Array.of(1, 2, 3);
    const insert = { name, values: new Map([['vm1', value]]) };
    const node = (driver: string, shards: number[]): [string, FdtFrame] => [
      driver,
      { name: driver, properties: compatible(`${driver}-v1`), children: new Map(), shards, insert },
    ];
    const core = { name: 'core', properties: new Map([['empty', new Uint8Array(0)]]), children: new Map() };
    const children = new Map<string, FdtFrame>([
      ['core', core],
      node('first', [0]),
      node('second', [1, 2]),
      node('third', []),
    ]);
    return { name: '', properties: compatible('kho-v1'), children };
  }

  test('can hold several drivers and nodes of the core, which can give the instances a property', () => {
    const { blocks, shards } = written();
    const frame = twoDrivers('mem');
    const target = new Uint8Array(2 ** 16).fill(0x77);
    const { size, parts } = renderStructBlocks(blocks, frame, (shard) => shards[shard]?.sink, target);
    const blob = target.subarray(0, size);
    expect(hex(blob)).toBe(hex(renderOracle(shards, frame)));
    const { root } = FdtReader.open(blob, { strict: true });
    expect([...root.get('second').get('vm1').properties()].map(({ name }) => name)).toEqual(['mem', 'of-1', 'of-2']);
    expect([...parts]).toEqual([
      ['first', { size: expect.any(Number), nodes: 5, properties: 4 }],
      ['second', { size: expect.any(Number), nodes: 8, properties: 8 }],
      ['third', { size: 16 + 24, nodes: 1, properties: 1 }],
    ]);
  });

  test('has no property that the core inserts from a shard, be it where it may', () => {
    const { blocks, shards } = written();
    for (const name of ['of-0', 'depth']) {
      const refused = render(blocks, shards, { frame: twoDrivers(name) });
      expect(refused).toMatch(new RegExp(`^KHO_EEXIST a shard wrote a property '${name}'`));
      expect(refused).toBe(renderOracle(shards, twoDrivers(name)));
    }
  });

  test('tells the driver in whose node two instances cannot stand side by side', () => {
    const blocks = new StructBlocks(0);
    const sinks = ['vm@1', 'vm'].map((instance) => new StructBlockSink(blocks, instance, 64));
    const kvm = { name: 'kvm', properties: compatible('kvm-v1'), children: new Map(), shards: [0, 1] };
    const frame = { name: '', properties: new Map(), children: new Map([['kvm', kvm]]) };
    const refuse = () => renderStructBlocks(blocks, frame, (shard) => sinks[shard], new Uint8Array(4096));
    expect(refuse).toThrow("the node /vm cannot stand beside 'vm@1'");
    expect(refuse).toThrow(
      expect.objectContaining({ code: 'KHO_EINVAL', details: expect.objectContaining({ driver: 'kvm' }) }),
    );
  });
});

test('nodes that are removed and added again for ever keep their numbers, and names of nodes that were are charged', () => {
  const sink = new StructBlockSink(new StructBlocks(0), 'instance', 4096);
  const add = (name: string) => {
    const node = sink.open(sink.root, name);
    sink.u32(sink.open(node, 'below'), sink.nameId('x'), 1);
    return node;
  };
  const first = add('queue');
  const used = sink.usedBytes;
  for (let round = 0; round < 10_000; round++) {
    expect(sink.remove(sink.root, 'queue')).toBe(true);
    expect(add('queue')).toBe(first);
  }
  expect(sink.usedBytes).toBe(used);
  let round = 0;
  const churn = () => {
    for (; ; round++) {
      sink.open(sink.root, `session-${round}`);
      sink.remove(sink.root, `session-${round}`);
    }
  };
  expect(churn).toThrow(/the names of nodes that it removed take 40\d\d: there is no room for another one/);
  expect(round).toBeGreaterThan(100);
  expect(sink.open(sink.root, 'session-0')).toBeGreaterThan(0);
  expect(sink.remove(sink.root, 'queue')).toBe(true);
});
