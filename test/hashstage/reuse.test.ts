import fc from 'fast-check';
import { KhoError } from 'khorus';
import { type FdtNode, FdtReader } from 'khorus/fdt';
import { describe, expect, test } from 'vitest';
import { driverRoot, Finalizer, ShardWriter, Stage } from '#dist/hashstage/index.js';

const ROOT = driverRoot(0);
const enospc = expect.objectContaining({ code: 'KHO_ENOSPC' });

/** What a shard holds, front to back: the oracle, and what is read from the blob. */
interface Tree {
  readonly properties: Map<string, string>;
  readonly children: Map<string, Tree>;
}
const emptyTree = (): Tree => ({ properties: new Map(), children: new Map() });

function treeOf(node: FdtNode): Tree {
  const tree = emptyTree();
  for (const { name, value } of node.properties()) tree.properties.set(name, Buffer.from(value).toString('hex'));
  for (const child of node.children()) tree.children.set(child.name, treeOf(child));
  return tree;
}

function rendered(stage: Stage, shards: readonly number[] = [0]): Tree {
  const target = new Uint8Array(2 ** 20);
  const { size } = new Finalizer(stage).render(shards, 'x', target);
  const tree = treeOf(FdtReader.open(target.subarray(0, size), { strict: true }).root);
  tree.properties.delete('compatible');
  return tree;
}

/** Children in their order too, which toEqual of maps does not compare. */
function orders(tree: Tree): unknown[] {
  return [...tree.children].map(([name, child]) => [name, [...child.properties], orders(child)]);
}

const name = (prefix: string, count: number) => fc.integer({ min: 0, max: count - 1 }).map((n) => `${prefix}${n}`);
const call = fc.record({
  kind: fc.constantFrom('write', 'write', 'write', 'remove', 'replace', 'reattach'),
  shard: fc.nat({ max: 1 }),
  path: fc.array(name('n', 3), { minLength: 1, maxLength: 3 }),
  property: name('p', 12),
  length: fc.oneof(fc.nat({ max: 20 }), fc.nat({ max: 400 })),
});

test('what is removed, replaced and added again in room that was used before is what maps would hold', () => {
  fc.assert(
    fc.property(fc.array(call, { maxLength: 120 }), (calls) => {
      const stage = Stage.create({ shardCount: 2, maxBytes: 2 ** 18, threads: 1, maxNames: 64 });
      const writers = [0, 1].map((shard) => new ShardWriter(stage, shard, 2 ** 17));
      const trees = [emptyTree(), emptyTree()];
      for (const [index, { kind, shard, path, property, length }] of calls.entries()) {
        const writer = writers[shard] as ShardWriter;
        if (kind === 'reattach') {
          writers[shard] = new ShardWriter(stage, shard, 2 ** 17);
          continue;
        }
        let tree = trees[shard] as Tree;
        let node = ROOT;
        for (const part of path.slice(0, -1)) {
          node = writer.open(node, part);
          const child = tree.children.get(part) ?? emptyTree();
          tree.children.set(part, child);
          tree = child;
        }
        const last = path.at(-1) ?? '';
        if (kind === 'remove') {
          expect(writer.remove(node, last)).toBe(tree.children.delete(last));
          continue;
        }
        node = kind === 'replace' ? writer.replace(node, last) : writer.open(node, last);
        if (kind === 'replace' || !tree.children.has(last)) tree.children.set(last, emptyTree());
        const value = new Uint8Array(length).fill(index);
        const { properties } = tree.children.get(last) as Tree;
        const write = () => writer.bytes(node, stage.nameId(`${property}-of-${shard}`), value);
        if (properties.has(`${property}-of-${shard}`))
          expect(write).toThrow(expect.objectContaining({ code: 'KHO_EEXIST' }));
        else {
          write();
          properties.set(`${property}-of-${shard}`, Buffer.from(value).toString('hex'));
        }
      }
      for (const shard of [0, 1]) {
        const found = rendered(stage, [shard]);
        expect(orders(found)).toEqual(orders(trees[shard] as Tree));
      }
    }),
    { numRuns: 500 },
  );
});

describe('for ever', () => {
  const maxBytes = 4096;
  /** A node of these properties, each of so many bytes. */
  const fill = (stage: Stage, writer: ShardWriter, node: number, lengths: readonly number[]) => {
    for (const [index, length] of lengths.entries()) {
      writer.bytes(node, stage.nameId(`p${index}`), new Uint8Array(length).fill(length));
    }
  };
  const rounds = 40_000;
  const cases: Record<string, (stage: Stage, writer: ShardWriter, root: number, round: number) => void> = {
    'a small node is replaced': (stage, writer, root) => fill(stage, writer, writer.replace(root, 'queue'), [4, 8]),
    'a node of several fragments is replaced': (stage, writer, root) => {
      const node = writer.replace(root, 'queue');
      writer.u32(node, stage.nameId('before'), 1);
      fill(stage, writer, writer.replace(node, 'ring'), [4, 100]);
      writer.bytes(node, stage.nameId('behind'), new Uint8Array(200));
    },
    'a node is removed and added again': (stage, writer, root, round) => {
      if (round > 0) expect(writer.remove(root, 'queue')).toBe(true);
      fill(stage, writer, writer.open(root, 'queue'), [4, 8, 300]);
    },
    'nodes come and go by turns': (stage, writer, root, round) => {
      writer.remove(root, `queue${(round * 7) % 10}`);
      fill(stage, writer, writer.open(root, `queue${(round * 3) % 10}`), [round % 90, 8]);
    },
    'a node is replaced by ever another size': (stage, writer, root, round) => {
      const size = (round * 7919) % 997;
      fill(stage, writer, writer.replace(root, `queue${round % 2}`), [size, size >> 1, size >> 2]);
    },
    'a subtree is replaced by a writer that has just come': (stage, _, __, round) => {
      if (round % 10 > 0) return; // it reads the shard back, which takes longer
      const writer = new ShardWriter(stage, 0, maxBytes);
      const root = writer.open(ROOT, 'instance');
      const node = writer.replace(root, 'port');
      for (const ring of ['rx', 'tx']) fill(stage, writer, writer.open(node, ring), [4, 40, round % 50]);
    },
  };
  for (const [what, step] of Object.entries(cases)) {
    test(`${what}: the stage takes no more than for the first few`, () => {
      const stage = Stage.create({ shardCount: 2, maxBytes: 2 * maxBytes, threads: 1, maxNames: 64 });
      const writer = new ShardWriter(stage, 0, maxBytes);
      const root = writer.open(ROOT, 'instance');
      // Another shard that had its first room before, and needs some after.
      const other = new ShardWriter(stage, 1, maxBytes);
      other.u32(other.open(ROOT, 'other'), stage.nameId('p0'), 1);
      for (let round = 0; round < 10_000; round++) step(stage, writer, root, round);
      const before = stage.allocate(0);
      for (let round = 10_000; round < rounds; round++) step(stage, writer, root, round);
      expect(stage.allocate(0) - before).toBe(0);
      fill(stage, other, other.open(ROOT, 'other2'), [1000]);
      expect(orders(rendered(stage, [1]))).toHaveLength(2);
      expect(orders(rendered(stage, [0]))).toHaveLength(1);
    });
  }
});

describe('who exceeds what is his', () => {
  const maxBytes = 4096;
  const makeStage = () => Stage.create({ shardCount: 8, maxBytes: 8 * maxBytes, threads: 1, maxNames: 64 });

  /** Whatever the first shard did, each other one finds all that it declared: seven trees of the smallest nodes. */
  const expectRoomForOthers = (stage: Stage) => {
    for (let shard = 1; shard < 8; shard++) {
      const writer = new ShardWriter(stage, shard, maxBytes);
      const root = writer.open(ROOT, `i${shard}`);
      let count = 0;
      const add = () => {
        for (; ; count++) writer.open(root, count.toString(36));
      };
      expect(add).toThrow(expect.objectContaining({ message: expect.stringMatching(/has used 40[89]\d/) }));
      expect(count).toBe(Math.floor((maxBytes - 12) / 12));
    }
  };

  test('by nodes of ever other names is told so, and nobody else is short of room', () => {
    const stage = makeStage();
    const writer = new ShardWriter(stage, 0, maxBytes);
    const root = writer.open(ROOT, 'instance');
    let round = 0;
    const churn = () => {
      for (; ; round++) {
        writer.open(root, `session-${round}`);
        writer.remove(root, `session-${round}`);
      }
    };
    expect(churn).toThrow(
      /the names of nodes that it removed take 40\d\d: there is no room for another one \('session-\d+'\)/,
    );
    expect(churn).toThrow(enospc);
    expect(round).toBeGreaterThan(100);
    // Names that it had are welcome, by whichever writer.
    for (const again of [writer, new ShardWriter(stage, 0, maxBytes)]) {
      expect(again.open(root, 'session-0')).toBeGreaterThan(0);
      expect(again.remove(root, 'session-0')).toBe(true);
    }
    // And refused ones leave nothing behind.
    const before = stage.allocate(0);
    for (let index = 0; index < 1000; index++) {
      expect(() => writer.open(root, `session-of-more-${index}`)).toThrow(enospc);
    }
    expect(stage.allocate(0)).toBe(before);
    expectRoomForOthers(stage);
  });

  test('by content of ever other shapes is refused at some point at most, and nobody else is short of room', () => {
    const stage = makeStage();
    const writer = new ShardWriter(stage, 0, maxBytes);
    const root = writer.open(ROOT, 'instance');
    let random = 1;
    const next = (below: number) => {
      random = (Math.imul(random, 1103515245) + 12345) & 0x7fffffff;
      return (random >>> 8) % below;
    };
    const outcomes = new Set<string>();
    for (let round = 0; round < 20_000; round++) {
      try {
        const node = writer.replace(root, `n${next(40)}`);
        for (let index = 0; index < 4; index++) {
          writer.bytes(node, stage.nameId(`p${index}`), new Uint8Array(next(2) === 0 ? next(40) : next(2000)));
        }
        outcomes.add('written');
      } catch (error) {
        expect(KhoError.from(error)).toEqual(enospc);
        outcomes.add(KhoError.from(error).message.replace(/\d+/g, 'N'));
        if (next(2) === 0) for (let index = 0; index < 40; index++) writer.remove(root, `n${index}`);
      }
    }
    expect([...outcomes]).toContain('written');
    expect([...outcomes].join('\n')).toMatch(/declared maxBytes/);
    expect(orders(rendered(stage, [0]))).toHaveLength(1);
    expectRoomForOthers(stage);
  });
});
