import { Worker } from 'node:worker_threads';
import { KhoError } from 'khorus';
import { FdtReader } from 'khorus/fdt';
import { describe, expect, test } from 'vitest';
import { ARENA_WORDS, driverRoot, Finalizer, ShardWriter, Stage } from '#dist/hashstage/index.js';

const enospc = expect.objectContaining({ code: 'KHO_ENOSPC' });

/** `instance/child/property=bytes` of everything in the blob of the first `shards` shards, read strictly. */
function rendered(stage: Stage, shards: number): string[] {
  const target = new Uint8Array(2 ** 21);
  const { size } = new Finalizer(stage).render([...Array(shards).keys()], 'x', target);
  const lines: string[] = [];
  const pending = [...FdtReader.open(target.subarray(0, size), { strict: true }).root.children()];
  for (let node = pending.shift(); node !== undefined; node = pending.shift()) {
    lines.push(node.path);
    for (const { name, value } of node.properties())
      lines.push(`${node.path}/${name}=${Buffer.from(value).toString('hex')}`);
    pending.push(...node.children());
  }
  return lines.sort();
}

/** Does the steps in order until one is out of space; says how many were done. Any other error is the test's. */
function untilFull(steps: readonly (() => void)[]): number {
  for (const [done, step] of steps.entries()) {
    try {
      step();
    } catch (error) {
      expect(KhoError.from(error)).toEqual(enospc);
      return done;
    }
  }
  return steps.length;
}

/** One writer's steps, each with the line that it adds to the blob. */
function script(stage: Stage, writer: ShardWriter): { lines: string[]; steps: (() => void)[] } {
  const lines: string[] = [];
  const steps: (() => void)[] = [];
  let instance = 0;
  const add = (line: string, step: () => void) => {
    lines.push(line);
    steps.push(step);
  };
  add('/nsim0', () => {
    instance = writer.open(driverRoot(0), 'nsim0');
  });
  for (let queue = 0; queue < 6; queue++) {
    const path = `/nsim0/queue-of-a-long-name-${queue}`;
    const node = () => writer.open(instance, `queue-of-a-long-name-${queue}`);
    add(path, node);
    add(`${path}/u32=0${queue}000000`, () => writer.u32(node(), stage.nameId('u32'), queue));
    add(`/nsim0/u64-${queue}=0${queue}00000007000000`, () =>
      writer.u64(instance, stage.nameId(`u64-${queue}`), 7, queue),
    );
    add(`${path}/bytes=${'ab'.repeat(queue * 5)}`, () =>
      writer.bytes(node(), stage.nameId('bytes'), new Uint8Array(queue * 5).fill(0xab)),
    );
  }
  return { lines, steps };
}

describe('with one byte of room more at a time', () => {
  test('a shard gets exactly as far as what was charged says, and the blob has exactly that', () => {
    const stage = Stage.create({ shardCount: 1, maxBytes: 8192, threads: 1, maxNames: 64 });
    const all = script(stage, new ShardWriter(stage, 0, 8192));
    // How many bytes each step needs, from the source of truth that a full run is.
    const probe = new ShardWriter(stage, 0, 8192);
    const needs = all.steps.map((step) => {
      step();
      return probe.usedBytes;
    });
    expect(rendered(stage, 1)).toEqual(all.lines.toSorted());
    const whole = needs.at(-1) ?? 0;
    for (let maxBytes = 0; maxBytes <= whole; maxBytes++) {
      const small = Stage.create({ shardCount: 1, maxBytes: 8192, threads: 1, maxNames: 64 });
      const writer = new ShardWriter(small, 0, maxBytes);
      const { lines, steps } = script(small, writer);
      const done = untilFull(steps);
      expect(done).toBe(needs.filter((need) => need <= maxBytes).length);
      // Refused once more, also by a writer that reads the shard back, and with nothing changed.
      if (done < steps.length) expect(steps[done]).toThrow(enospc);
      expect(new ShardWriter(small, 0, maxBytes).usedBytes).toBe(needs[done - 1] ?? 0);
      expect(rendered(small, 1)).toEqual(lines.slice(0, done).sort());
    }
  });
});

describe('with one name of room more at a time', () => {
  test('the names that are there stay usable, another one is refused by name', () => {
    for (let maxNames = 1; maxNames <= 33; maxNames++) {
      const stage = Stage.create({ shardCount: 1, maxBytes: 65536, threads: 1, maxNames });
      const writer = new ShardWriter(stage, 0, 65536);
      const node = writer.open(driverRoot(0), 'nsim0');
      stage.nameId('compatible'); // the finalizer's own
      const { nameSlots } = stage.geometry;
      expect(nameSlots).toBeGreaterThanOrEqual(2 * maxNames);
      const names = Array.from({ length: nameSlots }, (_, index) => `property-${index}`);
      const done = untilFull(names.map((name, index) => () => writer.u32(node, stage.nameId(name), index)));
      expect(done).toBe(nameSlots - 1);
      expect(() => stage.nameId('one-more')).toThrow(
        expect.objectContaining({ code: 'KHO_ENOSPC', details: { property: 'one-more' } }),
      );
      // Met before by no cache: another thread's view finds them all, and refuses the same.
      const other = Stage.attach(stage.handle);
      expect(names.slice(0, done).map((name) => other.nameText(other.nameId(name)))).toEqual(names.slice(0, done));
      expect(() => other.nameId('one-more')).toThrow(enospc);
      expect(rendered(stage, 1)).toHaveLength(1 + done);
    }
  });
});

describe('with all arenas gone', () => {
  test.each([
    ['small', 16],
    ['medium', 10_000],
    ['large', 100_000],
  ])('properties of %s values end with KHO_ENOSPC, and all before are there', (_, length) => {
    const stage = Stage.create({ shardCount: 1, maxBytes: 4096, threads: 1, maxNames: 4096 });
    const writer = new ShardWriter(stage, 0, 2 ** 30); // more than the stage was made for
    const node = writer.open(driverRoot(0), 'nsim0');
    const value = new Uint8Array(length).fill(0x5a);
    stage.nameId('compatible');
    const ids = Array.from({ length: 1000 }, (_, index) => stage.nameId(`p${index}`));
    let children = 0;
    const lines = ['/nsim0'];
    const write = () => {
      for (; ; children++) {
        const child = writer.open(node, `child${children}`);
        lines.push(`/nsim0/child${children}`);
        for (const [index, id] of ids.entries()) {
          writer.bytes(child, id, value);
          lines.push(`/nsim0/child${children}/p${index}=${Buffer.from(value).toString('hex')}`);
        }
      }
    };
    expect(write).toThrow(enospc);
    expect(lines.length).toBeGreaterThan(2);
    expect(rendered(stage, 1)).toEqual(lines.sort());
    // A small property may still fit, or not; a big one after it does not, and nothing is broken by either.
    untilFull([
      () => writer.u32(node, stage.nameId('last'), 1),
      () => writer.bytes(node, ids[0] ?? 0, new Uint8Array(2 ** 24)),
    ]);
    expect(rendered(stage, 1).filter((line) => !line.startsWith('/nsim0/last'))).toEqual(lines);
  });

  test('a target one byte too small for the blob is refused', () => {
    const stage = Stage.create({ shardCount: 1, maxBytes: 4096, threads: 1 });
    const writer = new ShardWriter(stage, 0, 4096);
    writer.u32(writer.open(driverRoot(0), 'nsim0'), stage.nameId('mtu'), 1500);
    const { size } = new Finalizer(stage).render([0], 'x', new Uint8Array(4096));
    expect(new Finalizer(stage).render([0], 'x', new Uint8Array(size)).size).toBe(size);
    expect(() => new Finalizer(stage).render([0], 'x', new Uint8Array(size - 1))).toThrow(
      expect.objectContaining({ code: 'KHO_ENOSPC', details: { size } }),
    );
  });

  test('threads that are refused at the same moment never get the same arena', async () => {
    const threads = 4;
    for (let round = 0; round < 8; round++) {
      const stage = Stage.create({ shardCount: 1, maxBytes: 2 ** 20, threads, maxNames: 64 });
      const { arenasAt, totalWords } = stage.geometry;
      const gate = new SharedArrayBuffer(4);
      const answers = await Promise.all(
        Array.from({ length: threads }, async (_, thread) => {
          const sizes = [5 * ARENA_WORDS, ARENA_WORDS, 29 * ARENA_WORDS, ARENA_WORDS];
          const workerData = { handle: stage.handle, thread, threads, gate, sizes };
          const worker = new Worker(new URL('../fixtures/stage-exhauster.js', import.meta.url), { workerData });
          const answer = await new Promise<{ pieces: [number, number][]; codes: string[] }>((resolve, reject) => {
            worker.once('message', resolve);
            worker.once('error', reject);
          });
          await worker.terminate();
          return answer;
        }),
      );
      for (const { codes } of answers) expect(codes).toEqual(['KHO_ENOSPC']);
      // Every size is a multiple of an arena, so the pieces tile the arenas with neither gap nor overlap.
      let end = arenasAt;
      for (const [start, words] of answers.flatMap(({ pieces }) => pieces).sort(([a], [b]) => a - b)) {
        expect(start).toBe(end);
        end += words;
      }
      expect(end).toBe(totalWords);
      expect(stage.arenaBytes).toBe((totalWords - arenasAt) * 4);
    }
  });
});
