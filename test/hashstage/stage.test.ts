import fc from 'fast-check';
import { KhoError } from 'khorus';
import { type FdtNode, FdtReader } from 'khorus/fdt';
import { expect, test } from 'vitest';
import * as layout from '#dist/hashstage/index.js';
import { driverRoot, Finalizer, ShardWriter, Stage } from '#dist/hashstage/index.js';

/** One call: the shard, the path of the node, and the property. */
interface Write {
  shard: number;
  path: readonly string[];
  name: string;
  value: Uint8Array;
  reattach: boolean;
}
const word = (prefix: string, count: number) => fc.integer({ min: 0, max: count - 1 }).map((n) => `${prefix}${n}`);
const write: fc.Arbitrary<Write> = fc.record({
  shard: fc.nat({ max: 2 }),
  path: fc.array(word('node', 4), { minLength: 1, maxLength: 3 }),
  name: word('property-', 9),
  value: fc.uint8Array({ maxLength: 40 }),
  reattach: fc.boolean(),
});

/** The oracle: a Map of Maps, path → name → value; shards merged in order at the end. */
function oracle(writes: readonly Write[]): Map<string, Map<string, Uint8Array>> | 'duplicate' {
  const nodes = new Map<string, Map<string, Uint8Array>>();
  for (const shard of [0, 1, 2]) {
    for (const { path, name, value } of writes.filter((write) => write.shard === shard)) {
      let at = '';
      for (const part of path) {
        at += `/${part}`;
        if (!nodes.has(at)) nodes.set(at, new Map());
      }
      const node = nodes.get(at);
      if (node?.has(name)) return 'duplicate';
      node?.set(name, value);
    }
  }
  return nodes;
}

function flatten(node: FdtNode, path: string, into: Map<string, Map<string, Uint8Array>>): void {
  for (const child of node.children()) {
    const here = `${path}/${child.name}`;
    into.set(here, new Map([...child.properties()].map(({ name, value }) => [name, Uint8Array.from(value)])));
    flatten(child, here, into);
  }
}

test('the stage holds what a Map of Maps would, from several shards, with writers that come and go', () => {
  fc.assert(
    fc.property(fc.array(write, { maxLength: 60 }), (writes) => {
      const stage = Stage.create({ shardCount: 3, maxBytes: 3 * 65536, threads: 1, maxNames: 64 });
      const writers = [0, 1, 2].map((shard) => new ShardWriter(stage, shard, 65536));
      const expected = oracle(writes);
      const apply = () => {
        for (const { shard, path, name, value, reattach } of writes) {
          if (reattach) writers[shard] = new ShardWriter(stage, shard, 65536);
          const writer = writers[shard] as ShardWriter;
          const node = path.reduce((parent, part) => writer.open(parent, part), driverRoot(0));
          writer.bytes(node, stage.nameId(name), value);
        }
        const target = new Uint8Array(2 ** 18);
        return target.subarray(0, new Finalizer(stage).render([0, 1, 2], 'x', target).size);
      };
      if (expected === 'duplicate') {
        expect(apply).toThrow(expect.objectContaining({ code: 'KHO_EEXIST' }));
        return;
      }
      const found = new Map<string, Map<string, Uint8Array>>();
      flatten(FdtReader.open(apply(), { strict: true }).root, '', found);
      expect(found).toEqual(expected);
    }),
    { numRuns: 500 },
  );
});

test('a shard that may use ever more bytes gets ever further, and never breaks what is there', () => {
  let furthest = -1;
  for (let maxBytes = 0; maxBytes < 400; maxBytes++) {
    const stage = Stage.create({ shardCount: 1, maxBytes: 4096, threads: 1, maxNames: 64 });
    const writer = new ShardWriter(stage, 0, maxBytes);
    let done = 0;
    try {
      const node = writer.open(driverRoot(0), 'instance');
      for (; done < 12; done++) writer.u64(node, stage.nameId(`property-${done}`), 1, done);
    } catch (error) {
      expect(KhoError.from(error).code).toBe('KHO_ENOSPC');
    }
    expect(writer.usedBytes).toBeLessThanOrEqual(maxBytes);
    const target = new Uint8Array(4096);
    const { size } = new Finalizer(stage).render([0], 'x', target);
    const [node] = FdtReader.open(target.subarray(0, size), { strict: true }).root.children();
    expect([...(node?.properties() ?? [])].length).toBe(done);
    expect(done).toBeGreaterThanOrEqual(Math.max(furthest, 0));
    furthest = done;
  }
  expect(furthest).toBe(12);
});

test('more names than there is room for, and more nodes than the arenas hold, are KHO_ENOSPC', () => {
  const stage = Stage.create({ shardCount: 1, maxBytes: 64, threads: 1, maxNames: 4 });
  expect(() => {
    for (let name = 0; name < 100; name++) stage.nameId(`name-${name}`);
  }).toThrow(expect.objectContaining({ code: 'KHO_ENOSPC' }));
  const small = Stage.create({ shardCount: 1, maxBytes: 64, threads: 1, maxNames: 4 });
  const writer = new ShardWriter(small, 0, 2 ** 30);
  expect(() => {
    for (let node = 0; node < 10_000_000; node++) writer.open(driverRoot(0), `node-${node}`);
  }).toThrow(expect.objectContaining({ code: 'KHO_ENOSPC' }));
});

test('nodes that crowd one place of the table are all there, once each, and seen by every thread', () => {
  const stage = Stage.create({ shardCount: 1, maxBytes: 65536, threads: 2 });
  // Upper and lower case want the same slots near their neighbours, and so do many of one parent's children.
  const letters = [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'];
  const names = letters.flatMap((first) => letters.map((second) => `port-${first}${second}`));
  const refs = names.map((name) => stage.openNode(driverRoot(0), name));
  expect(new Set(refs).size).toBe(names.length);
  const other = Stage.attach(stage.handle);
  expect(names.map((name) => other.findNode(driverRoot(0), name))).toEqual(refs);
  expect(names.map((name) => other.openNode(driverRoot(0), name))).toEqual(refs);
  expect(other.findNode(driverRoot(0), 'port-A-')).toBe(0);
  expect(other.findNode(driverRoot(1), 'port-AA')).toBe(0);
});

test('two shards that give one node the same property are found when the stage is rendered', () => {
  const stage = Stage.create({ shardCount: 2, maxBytes: 8192, threads: 1 });
  for (const shard of [0, 1]) {
    const writer = new ShardWriter(stage, shard, 4096);
    writer.u32(writer.open(driverRoot(0), 'port'), stage.nameId('mtu'), 1500);
  }
  expect(() => new Finalizer(stage).render([0, 1], 'x', new Uint8Array(4096))).toThrow(
    expect.objectContaining({
      code: 'KHO_EEXIST',
      details: expect.objectContaining({ path: '/port', property: 'mtu' }),
    }),
  );
});

test('the layout is as it is drawn: contended words on cache lines of their own, parts one after another', () => {
  const { HEADER_ARENA_NEXT, HEADER_NAME_COUNT, HEADER_WORDS, SHARD_WORDS, ARENA_WORDS } = layout;
  expect([HEADER_ARENA_NEXT, HEADER_NAME_COUNT, HEADER_WORDS]).toEqual([16, 32, 48]);
  expect(SHARD_WORDS * 4).toBe(128);
  expect(ARENA_WORDS * 4).toBe(65536);
  const geometry = layout.stageGeometry({
    ...{ shardCount: 3, nameSlots: 1024, nodeSlots: 2048, reserveSlots: 512, arenaBytes: 100_000 },
  });
  expect(geometry).toEqual({
    shardCount: 3,
    nameSlots: 1024,
    nodeSlots: 2048,
    reserveSlots: 512,
    shardsAt: 48,
    reserveSlotsAt: 48 + 3 * 32,
    namesAt: 48 + 3 * 32 + 512,
    nameSlotsAt: 48 + 3 * 32 + 512 + 1024,
    nodeSlotsAt: 48 + 3 * 32 + 512 + 2 * 1024,
    arenasAt: ARENA_WORDS,
    totalWords: 3 * ARENA_WORDS,
  });
});

test('a node that is opened again leaves nothing behind where the next node is made', () => {
  const render = (reopen: boolean): Buffer => {
    const stage = Stage.create({ shardCount: 1, maxBytes: 4096, threads: 1, maxNames: 64 });
    const writer = new ShardWriter(stage, 0, 4096);
    const long = 'a-name-of-many-characters-all-of-them-in-use-0123456789';
    const root = writer.open(driverRoot(0), 'dev0');
    const first = writer.open(root, long);
    writer.u32(first, stage.nameId('x'), 1);
    if (reopen) expect(writer.open(root, long)).toBe(first); // its record is taken back
    writer.open(root, 'b'); // has its fragment where that one's name was
    writer.open(root, 'c');
    const target = new Uint8Array(4096);
    return Buffer.from(target.subarray(0, new Finalizer(stage).render([0], 'dev-v1', target).size));
  };
  expect(render(true).equals(render(false))).toBe(true);
});

test('a tree of the smallest nodes that there are fits as far as its bytes do, and every node is found again', () => {
  const maxBytes = 600_000;
  const stage = Stage.create({ shardCount: 1, maxBytes, threads: 1, maxNames: 64 });
  const { nodeSlots, reserveSlots } = stage.geometry;
  const writer = new ShardWriter(stage, 0, maxBytes);
  const root = writer.open(driverRoot(0), 'r');
  const letters = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789';
  const names = [...letters].flatMap((a) => [...letters].map((b) => a + b));
  const refs = new Map<string, number>();
  let nodes = 1;
  for (const outer of names) {
    if (nodes + 60 > maxBytes / 12 - 10) break;
    const parent = writer.open(root, outer);
    nodes++;
    for (const inner of names.slice(0, 59)) {
      refs.set(`${outer}/${inner}`, writer.open(parent, inner));
      nodes++;
    }
  }
  expect(nodes).toBeGreaterThan(1.4 * nodeSlots); // so that the reserve is needed
  expect(nodes).toBeLessThan(reserveSlots);
  for (const [path, ref] of refs) {
    const [outer = '', inner = ''] = path.split('/');
    expect(writer.open(writer.open(root, outer), inner)).toBe(ref);
  }
  expect(new Set(refs.values()).size).toBe(refs.size);
});
