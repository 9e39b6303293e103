import { describe, expect, test } from 'vitest';
import { FdtReader } from '#dist/fdt/index.js';
import {
  ExtentTable,
  PAGE_SIZE,
  type PhysicalAddress,
  PreservedPages,
  physicalAddress,
  RadixTree,
  SharedPhysicalMemory,
} from '#dist/memblock/index.js';
import { type CallbackPhase, CallbackScope, type ContextCall } from '#dist/workers/callback-scope.js';
import { DmaGate } from '#dist/workers/dma-gate.js';
import type { PropertyName } from '#dist/workers/driver.js';
import { DriverContext } from '#dist/workers/driver-context.js';
import { SinkNodeWriter } from '#dist/workers/node-writer.js';
import { renderStructBlocks } from '#dist/workers/render-struct-blocks.js';
import { StructBlockSink } from '#dist/workers/struct-block-sink.js';
import { StructBlocks } from '#dist/workers/struct-blocks.js';

const page = (number: number): PhysicalAddress => physicalAddress(number * PAGE_SIZE);
/** Where the two shards' pages lie; pages 16 up to there are the tracker's tables. */
const GRANTED = [page(1024), page(1028)];
const PAGES_EACH = 4;

/** Unbacked. */
const GUEST = page(4096);

/** A context of `phase` for an instance with two shards of four pages each, and what it is made of. */
function contextOf(phase: CallbackPhase, ownShard = 0) {
  const memory = SharedPhysicalMemory.create([
    { base: page(0), size: 8 * 2 ** 20, nid: 0, backed: true },
    { base: GUEST, size: 2 ** 20, nid: 0, backed: false },
  ]);
  let table = 16;
  const tracker = RadixTree.create(memory, () => page(table++));
  for (const base of GRANTED) tracker.ensureRange(base, PAGES_EACH, 2);
  const extents = ExtentTable.create(
    GRANTED.map((base) => ({ pages: PAGES_EACH, ranges: [{ base, pages: PAGES_EACH }] })),
  );
  // Shard 0 has guest memory: two folios of order 1.
  const guest = ExtentTable.create([{ pages: 4, ranges: [{ base: GUEST, pages: 4 }], order: 1 }]).extent(0);
  tracker.ensureRange(GUEST, 4, 1);
  const blocks = new StructBlocks();
  const sinks = GRANTED.map(() => new StructBlockSink(blocks, 'nsim0', 4096));
  let statesMade = 0;
  const scope = new CallbackScope(phase);
  const context = new DriverContext(scope, {
    driver: 'netdevsim',
    instance: 'nsim0',
    index: 0,
    options: { queues: 2 },
    seed: 7,
    memory,
    preserved: new PreservedPages(tracker, memory),
    shards: sinks.map((sink, shard) => ({
      extents: extents.extent(shard),
      ...(shard === 0 && { guest }),
      sink: () => sink,
    })),
    ownShard,
    state: () => ({ made: ++statesMade }),
    prepared: 'prepared',
    early: () => new CallbackScope('early'),
    dma: DmaGate.create(),
  });
  return { context, scope, tracker, extents, guest, sinks, memory, statesMade: () => statesMade };
}

/** Every call of a context, each so that it succeeds where it is allowed. The pages are made anew by each. */
const CALLS: Record<Exclude<ContextCall, 'claim' | 'discard'>, (context: DriverContext) => void> = {
  node: (context) => context.node('queue0'),
  has: (context) => context.root.has('queue0'),
  remove: (context) => context.root.remove('queue0'),
  replace: (context) => context.root.replace('queue0'),
  name: (context) => context.name('mtu'),
  u32: (context) => context.root.u32('p', 1),
  u64: (context) => context.root.u64('p', 1n),
  u32s: (context) => context.root.u32s('p', [1, 2]),
  u64s: (context) => context.root.u64s('p', [1n, 2]),
  string: (context) => context.root.string('p', 'text'),
  bytes: (context) => context.root.bytes('p', Uint8Array.of(1)),
  flag: (context) => context.root.flag('p'),
  alloc: (context) => context.alloc(1),
  allocFolio: (context) => context.allocFolio(1),
  allocGuest: (context) => context.allocGuest(),
  free: (context) => context.free({ address: GRANTED[0], pages: 1 }),
  preserve: (context) => context.preserve({ address: GRANTED[0], pages: 1 }),
  unpreserve: (context) => context.unpreserve({ address: GRANTED[0], pages: 1 }),
  'memory.read': (context) => context.memory.read(page(0), 8),
  'memory.write': (context) => context.memory.write(GRANTED[0], Uint8Array.of(1)),
  shard: (context) => context.shard(1),
  early: (context) => context.early(1).node('early'),
  dma: (context) => context.dma({ address: GRANTED[0], pages: 1 }),
};
const WRITES = ['node', 'has', 'remove', 'replace', 'name', 'u32', 'u64', 'u32s', 'u64s', 'string', 'bytes', 'flag'];
const PAGES = ['alloc', 'allocFolio', 'allocGuest', 'free', 'preserve', 'unpreserve'];
/** What docs and types promise for each phase, written down once more. */
const PROMISED: [CallbackPhase, string[]][] = [
  ['create', []],
  ['prepare', [...WRITES, ...PAGES, 'memory.read', 'memory.write', 'shard', 'early', 'dma']],
  ['early', [...WRITES, ...PAGES]],
  ['update', [...WRITES, ...PAGES, 'memory.read', 'memory.write', 'shard', 'early', 'dma']],
  ['shutdown', ['memory.read', 'memory.write']],
  ['unfreeze', ['memory.read']],
  ['freeze', ['memory.read', 'memory.write']],
  ['serialize', [...WRITES, ...PAGES, 'memory.read', 'memory.write']],
  ['cancel', ['free', 'unpreserve', 'memory.read']],
];
const perm = (details: object, message: unknown = expect.any(String)) =>
  expect.objectContaining({ code: 'KHO_EPERM', message, details: expect.objectContaining(details) });

describe('guest memory', () => {
  test('comes in folios of the order that was declared, until none is left', () => {
    const { context, guest } = contextOf('prepare');
    const folios = [context.allocGuest(), context.allocGuest()];
    expect(folios).toEqual([
      { address: GUEST, order: 1 },
      { address: GUEST + 2 * PAGE_SIZE, order: 1 },
    ]);
    expect(() => context.allocGuest()).toThrow(expect.objectContaining({ code: 'KHO_ENOMEM' }));
    context.free(folios[0]);
    expect(() => context.free(folios[0])).toThrow(expect.objectContaining({ code: 'KHO_EINVAL' }));
    expect(guest.freePages).toBe(2);
    expect(context.allocGuest()).toEqual(folios[0]);
    expect(() => context.shard(1).allocGuest()).toThrow(
      perm({ call: 'allocGuest' }, expect.stringContaining('declared')),
    );
  });

  test('is preserved by whole folios, and busy as long as it is', () => {
    const { context, tracker, guest } = contextOf('prepare');
    const folio = context.allocGuest();
    for (const part of [
      { ...folio, order: 0 },
      { ...folio, order: 2 },
      { address: GUEST, pages: 2 },
      { address: page(GUEST / PAGE_SIZE + 1), order: 1 },
    ]) {
      for (const call of ['preserve', 'unpreserve', 'free'] as const) {
        expect(() => context[call](part), call).toThrow(expect.objectContaining({ code: 'KHO_EINVAL' }));
      }
    }
    context.preserve(folio);
    expect(tracker.test(folio.address, 1)).toBe(true);
    expect(() => context.preserve(folio)).toThrow(expect.objectContaining({ code: 'KHO_EEXIST' }));
    expect(() => context.free(folio)).toThrow(expect.objectContaining({ code: 'KHO_EBUSY' }));
    expect(guest.freePages).toBe(2);
    context.unpreserve(folio);
    expect(tracker.test(folio.address, 1)).toBe(false);
    context.free(folio);
    expect(guest.freePages).toBe(4);
  });

  test('has no bytes to read or write', () => {
    const { context } = contextOf('prepare');
    const { address } = context.allocGuest();
    const fault = expect.objectContaining({ code: 'KHO_EFAULT', message: expect.stringContaining('is unbacked') });
    expect(() => context.memory.write(address, Uint8Array.of(1))).toThrow(fault);
    expect(() => context.memory.writeU64(address, 1n)).toThrow(fault);
    expect(() => context.memory.fill(address, PAGE_SIZE, 0)).toThrow(fault);
    expect(() => context.memory.read(address, 1)).toThrow(fault);
    expect(() => context.memory.readU64(address)).toThrow(fault);
    expect(() => context.dma({ address, order: 1 })).toThrow(perm({ call: 'dma' }));
  });
});

describe('the calls of a phase', () => {
  test.each(PROMISED)('%s allows what it promises; any other call is KHO_EPERM naming both', (phase, allowed) => {
    for (const [call, run] of Object.entries(CALLS)) {
      const { context, tracker, extents } = contextOf(phase);
      if (call === 'free') expect(extents.extent(0).alloc(1).address).toBe(GRANTED[0]);
      if (call === 'unpreserve') tracker.set(GRANTED[0], 0);
      if (allowed.includes(call)) {
        expect(() => run(context), call).not.toThrow();
        continue;
      }
      // To write a property one needs the node, so that is what is refused.
      const refused = WRITES.includes(call) && call !== 'name' ? 'node' : call;
      expect(() => run(context), call).toThrow(perm({ phase, call: refused }, expect.stringContaining(phase)));
    }
  });

  test.each<[CallbackPhase, ContextCall, string]>([
    ['serialize', 'shard', 'shard is not allowed in serialize, only in prepare, update'],
    ['freeze', 'alloc', 'alloc is not allowed in freeze, only in prepare, early, update, serialize'],
    ['cancel', 'preserve', 'preserve is not allowed in cancel, only in prepare, early, update, serialize'],
    ['finish', 'claim', 'claim is not allowed in finish, only in restore'],
    ['prepare', 'discard', 'discard is not allowed in prepare, only in restore'],
    [
      'create',
      'memory.read',
      'memory.read is not allowed in create, only in prepare, update, shutdown, freeze, serialize, unfreeze, cancel, restore',
    ],
  ])('in %s, a refused %s is told where it belongs', (phase, call, message) => {
    expect(() => new CallbackScope(phase).check(call)).toThrow(perm({ phase, call }, message));
  });
});

describe('a callback that has returned', () => {
  test('leaves a context behind with which nothing can be done', () => {
    for (const [call, run] of Object.entries(CALLS)) {
      const { context, scope } = contextOf('prepare');
      scope.close();
      const refused = WRITES.includes(call) && call !== 'name' ? 'node' : call;
      const message = `${refused} on a context of prepare, which has returned`;
      expect(() => run(context), call).toThrow(perm({ phase: 'prepare', call: refused }, message));
    }
  });

  test('also closes the nodes, shards and memory that the context gave out', () => {
    const { context, scope, sinks } = contextOf('prepare');
    const kept = { node: context.node('queue0'), shard: context.shard(1), memory: context.memory };
    const before = sinks.map((sink) => sink.usedBytes);
    scope.close();
    const gone = expect.objectContaining({ code: 'KHO_EPERM', message: expect.stringContaining('has returned') });
    expect(() => kept.node.u32('late', 1)).toThrow(gone);
    expect(() => kept.node.node('late')).toThrow(gone);
    expect(() => kept.shard.alloc(1)).toThrow(gone);
    expect(() => kept.shard.node('late')).toThrow(gone);
    expect(() => kept.memory.fill(GRANTED[0], 1, 0)).toThrow(gone);
    expect(sinks.map((sink) => sink.usedBytes)).toEqual(before);
  });
});

describe('a context', () => {
  test('makes the state when it is first asked for, once', () => {
    const { context, statesMade } = contextOf('serialize');
    expect(statesMade()).toBe(0);
    expect(context.state).toBe(context.state);
    expect(statesMade()).toBe(1);
  });

  test('has generators that depend on the stream alone', () => {
    const one = contextOf('serialize', 0).context;
    const other = contextOf('prepare', 1).context;
    expect(one.random('queue1').u64()).toBe(other.random('queue1').u64());
    expect(one.random('queue1').u64()).not.toBe(one.random('queue2').u64());
  });

  test('writes only into pages of its instance, wholly', () => {
    const { context, memory } = contextOf('serialize');
    context.memory.writeU64(GRANTED[1], 0x1122334455667788n); // the other shard is the same instance
    expect(memory.readU64(GRANTED[1])).toBe(0x1122334455667788n);
    for (const [address, length] of [
      [GRANTED[0] - 1, 1],
      [GRANTED[0] - 1, 2],
      [GRANTED[1] + PAGES_EACH * PAGE_SIZE - 1, 2],
      [GRANTED[1] + PAGES_EACH * PAGE_SIZE, 1],
    ]) {
      expect(() => context.memory.write(physicalAddress(address), new Uint8Array(length))).toThrow(
        perm({ call: 'memory.write', address, size: length }),
      );
    }
  });

  test('preserves only pages of the shard that runs, in serialize', () => {
    const { context } = contextOf('serialize', 1);
    context.preserve({ address: GRANTED[1], pages: 3 });
    expect(() => context.preserve({ address: GRANTED[0], pages: 1 })).toThrow(
      perm({ call: 'preserve', address: GRANTED[0] }),
    );
    expect(() => context.preserve({ address: GRANTED[1], pages: 5 })).toThrow(perm({ call: 'preserve' }));
    expect(() => contextOf('prepare').context.shard(2)).toThrow(
      expect.objectContaining({ code: 'KHO_EINVAL', message: 'there is no shard 2; the instance has 2' }),
    );
  });

  test('marks nothing if one of the objects of a range is marked already', () => {
    const { context, tracker } = contextOf('serialize');
    tracker.set(physicalAddress(GRANTED[0] + 2 * PAGE_SIZE), 0);
    const range = { address: GRANTED[0], pages: 3 }; // an object of order 1, then the marked one
    expect(() => context.preserve(range)).toThrow(expect.objectContaining({ code: 'KHO_EEXIST' }));
    expect(tracker.test(GRANTED[0], 1)).toBe(false);
  });

  test('does not free what is preserved, even if it was preserved in other pieces than it was allocated', () => {
    const busy = expect.objectContaining({ code: 'KHO_EBUSY' });
    const { context } = contextOf('prepare');
    const all = context.alloc(4);
    for (const piece of [
      all,
      { address: all.address, pages: 1 },
      { address: physicalAddress(all.address + 3 * PAGE_SIZE), order: 0 },
      { address: physicalAddress(all.address + 2 * PAGE_SIZE), order: 1 },
    ]) {
      context.preserve(piece);
      expect(() => context.free(all)).toThrow(busy);
      context.unpreserve(piece);
    }
    context.free(all);
    // Two allocations that are neighbours, preserved as one object.
    const [first, second] = [context.alloc(1), context.alloc(1)];
    expect(second.address).toBe(first.address + PAGE_SIZE);
    context.preserve({ address: first.address, order: 1 });
    expect(() => context.free(second)).toThrow(busy);
    expect(() => context.free(first)).toThrow(busy);
  });
});

describe('the values of a node', () => {
  /** A node to write to, and the properties that came of it. */
  function scratchNode() {
    const blocks = new StructBlocks();
    const sink = new StructBlockSink(blocks, 'nsim0', 65536);
    const node = new SinkNodeWriter(new CallbackScope('serialize'), sink, sink.root);
    const read = () => {
      const frame = { name: '', properties: new Map(), children: new Map(), shards: [0] };
      const target = new Uint8Array(65536);
      const { size } = renderStructBlocks(blocks, frame, () => sink, target);
      return FdtReader.open(target.subarray(0, size), { strict: true }).root.get('nsim0');
    };
    return { node, sink, read };
  }

  const invalid = (message: unknown) => expect.objectContaining({ code: 'KHO_EINVAL', message });

  test('are stored as they were given, at the ends of their ranges', () => {
    const { node, read } = scratchNode();
    node.u32('u32-0', 0).u32('u32-max', 0xffffffff).u32s('u32s', [1, 0xffffffff]).u32s('none', []);
    node
      .u64('u64-0', 0)
      .u64('u64-number', Number.MAX_SAFE_INTEGER)
      .u64('u64-max', 2n ** 64n - 1n);
    node
      .u64s('u64s', [1, 2 ** 40 + 3, 2n ** 63n])
      .string('text', 'Zürich')
      .string('empty', '')
      .flag('flag');
    const written = read();
    expect(written.property('u32-0')?.u32('little')).toBe(0);
    expect(written.property('u32-max')?.u32('little')).toBe(0xffffffff);
    expect(written.property('u32s')?.u32s('little')).toEqual([1, 0xffffffff]);
    expect(written.property('none')?.value).toHaveLength(0);
    expect(written.property('u64-0')?.u64('little')).toBe(0n);
    expect(written.property('u64-number')?.u64('little')).toBe(BigInt(Number.MAX_SAFE_INTEGER));
    expect(written.property('u64-max')?.u64('little')).toBe(2n ** 64n - 1n);
    expect(written.property('u64s')?.u64s('little')).toEqual([1n, 2n ** 40n + 3n, 2n ** 63n]);
    expect(written.property('text')?.string()).toBe('Zürich');
    expect(written.property('empty')?.string()).toBe('');
    expect(written.property('flag')?.value).toHaveLength(0);
  });

  test.each([-1, 2 ** 32, 1.5, Number.NaN, Number.POSITIVE_INFINITY])('%d is no 32-bit value', (value) => {
    const { node, sink } = scratchNode();
    const before = sink.usedBytes;
    const message = `property 'mtu': ${value} is not an unsigned 32-bit integer`;
    expect(() => node.u32('mtu', value)).toThrow(invalid(message));
    expect(() => node.u32s('mtu', [0, value])).toThrow(invalid(message));
    expect(sink.usedBytes).toBe(before);
  });

  test.each<[unknown, string]>([
    [-1, '-1 is not an unsigned 64-bit integer (above 2^53-1 use a bigint)'],
    [2 ** 53, '9007199254740992 is not an unsigned 64-bit integer (above 2^53-1 use a bigint)'],
    [0.5, '0.5 is not an unsigned 64-bit integer (above 2^53-1 use a bigint)'],
    [-1n, '-1 is not an unsigned 64-bit integer'],
    [2n ** 64n, '18446744073709551616 is not an unsigned 64-bit integer'],
    // What plain JavaScript gets wrong; a bigint array would take the text and the boolean.
    [undefined, 'undefined is not an unsigned 64-bit integer'],
    [null, 'null is not an unsigned 64-bit integer'],
    ['ten', 'ten is not an unsigned 64-bit integer'],
    ['10', '10 is not an unsigned 64-bit integer'],
    [true, 'true is not an unsigned 64-bit integer'],
  ])('%s is no 64-bit value', (value, message) => {
    const { node, sink } = scratchNode();
    const before = sink.usedBytes;
    expect(() => node.u64('ticks', value as never)).toThrow(invalid(`property 'ticks': ${message}`));
    expect(() => node.u64s('ticks', [0, value as never])).toThrow(invalid(`property 'ticks': ${message}`));
    expect(sink.usedBytes).toBe(before);
  });

  test('text holds no NUL, bytes are a Uint8Array', () => {
    const { node } = scratchNode();
    const text = "the text of 'model' must be a string without NUL characters";
    expect(() => node.string('model', 'a\0b')).toThrow(invalid(text));
    expect(() => node.string('model', 7 as never)).toThrow(invalid(text));
    expect(() => node.bytes('mac', [1, 2] as never)).toThrow(
      invalid("the value of 'mac' must be a Uint8Array, found object"),
    );
  });

  test('bytes are copied: what the driver does with its buffer later does not matter', () => {
    const { node, read } = scratchNode();
    const buffer = Uint8Array.of(1, 2, 3);
    node.bytes('mac', buffer);
    buffer.fill(9);
    expect(read().property('mac')?.value).toEqual(Uint8Array.of(1, 2, 3));
  });

  test('names with characters that no FDT name has are refused with a name that would do', () => {
    const { node } = scratchNode();
    expect(() => node.node('0000:3b:00.0')).toThrow(
      invalid(expect.stringMatching(/has ':'.*; write '0000-3b-00\.0'$/)),
    );
    expect(() => node.u32('rx:bytes', 1)).toThrow(invalid(expect.stringMatching(/has ':'.*; write 'rx-bytes'$/)));
    expect(() => node.u32('rx:bytes', 1), 'the second time too').toThrow(invalid(expect.stringContaining("has ':'")));
  });

  test('a name that was looked up once is the same name; a number that is none is refused', () => {
    const { context, sinks } = contextOf('serialize');
    const name = context.name('rx-bytes');
    context.root.u64(name, 5);
    expect(() => context.root.u64('rx-bytes', 5)).toThrow(
      expect.objectContaining({ code: 'KHO_EEXIST', details: expect.objectContaining({ property: 'rx-bytes' }) }),
    );
    expect([...sinks[0].tree.properties.keys()]).toEqual(['rx-bytes']);
    for (const made of [-1, 1, 0.5, Number.NaN, 2 ** 31]) {
      expect(() => context.root.flag(made as PropertyName)).toThrow(
        invalid(`${made} is not the id of a property name`),
      );
    }
  });

  test('a node lies at most as deep as the restoring reader goes', () => {
    const { node, read } = scratchNode();
    let deepest = node.node('n');
    let depth = 3;
    const dig = () => {
      for (; ; depth++) deepest = deepest.node('n');
    };
    expect(dig).toThrow(invalid("the node 'n' would lie deeper than 64 levels"));
    expect(depth).toBe(64);
    expect(() => read()).not.toThrow();
  });
});
