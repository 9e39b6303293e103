import { Worker } from 'node:worker_threads';
import { KhoError } from 'khorus';
import { FdtReader } from 'khorus/fdt';
import { expect, test } from 'vitest';
import { driverRoot, Finalizer, ShardWriter, Stage } from '#dist/hashstage/index.js';

const ROUNDS = 200;
const MAX_BYTES = 16_384;

/** What the others write while one is terminated: the same nodes, and some of their own. */
function writeOthers(stage: Stage, shards: readonly number[]): void {
  const writers = shards.map((shard) => new ShardWriter(stage, shard, MAX_BYTES));
  for (let index = 0; index < 20; index++) {
    for (const [which, writer] of writers.entries()) {
      const root = writer.open(driverRoot(0), 'shared');
      const node = writer.open(root, `node${index % 7}`);
      writer.u64(node, stage.nameId(`of-${which}-${index}`), which, index);
      writer.u32(writer.replace(root, `own-${which}`), stage.nameId('p0'), index);
    }
  }
}

function rendered(stage: Stage, shards: readonly number[]): Buffer {
  const target = new Uint8Array(2 ** 18);
  const { size } = new Finalizer(stage).render(shards, 'x', target);
  return Buffer.from(target.subarray(0, size));
}

const makeStage = () => Stage.create({ shardCount: 3, maxBytes: 3 * MAX_BYTES, threads: 3, maxNames: 256 });

test(`a thread that is terminated anywhere, ${ROUNDS} times, leaves the others every byte and its own shard readable`, async () => {
  const alone = makeStage();
  writeOthers(alone, [1, 2]);
  const expected = rendered(alone, [1, 2]);
  let steps = 0;
  const outcomes = new Set<string>();
  const once = async (round: number) => {
    const stage = makeStage();
    const counter = new Int32Array(new SharedArrayBuffer(4));
    const workerData = { handle: stage.handle, shard: 0, maxBytes: MAX_BYTES, steps: counter };
    const worker = new Worker(new URL('../fixtures/endless-stage-writer.js', import.meta.url), { workerData });
    let failure: unknown;
    worker.once('error', (error) => {
      failure = error;
    });
    const died = new Promise((resolve) => worker.once('exit', resolve));
    // It is in the middle of its work, a little further each round.
    while (Atomics.load(counter, 0) <= (round * 13) % 400) {
      if (failure !== undefined) throw failure;
      await new Promise((resolve) => setImmediate(resolve));
    }
    const ended = worker.terminate();
    writeOthers(stage, [1, 2]);
    await Promise.all([ended, died]);
    steps += Atomics.load(counter, 0);
    expect(rendered(stage, [1, 2]).equals(expected), `round ${round}`).toBe(true);
    try {
      FdtReader.open(rendered(stage, [0]));
      outcomes.add('readable');
    } catch (error) {
      expect(error, `round ${round}`).toBeInstanceOf(KhoError);
      outcomes.add(KhoError.from(error).code);
    }
  };
  // Four at a time: to start a thread takes longer than all the rest.
  for (let round = 0; round < ROUNDS; round += 4) await Promise.all([0, 1, 2, 3].map((lane) => once(round + lane)));
  expect(steps).toBeGreaterThan(ROUNDS * 100);
  expect(outcomes).toContain('readable');
}, 300_000);
