/** Workers run the callbacks and send what they wrote; the main thread makes the FDT of it. */
import type { Measured } from '../harness/comparison.js';
import { ThreadTeam } from '../harness/thread-team.js';
import { INSTANCE_NAMES, INSTANCES, type Load } from '../load.js';
import { blobTarget } from '../load-size.js';
import { DirectWriter } from '../peers/direct-writer.js';
import { type ObjectBatch, writeObjects } from '../peers/object-tree.js';
import { type WireStream, writeStreams } from '../peers/wire-stream.js';
import type { SerializeJob } from '../threads/serialize-thread.js';

export interface CollectParameters {
  /** Objects are copied by structured clone, buffers are transferred. */
  readonly by: SerializeJob['by'];
  readonly workers: number;
  readonly load: Load;
}

const THREAD_MODULE = new URL('../threads/serialize-thread.js', import.meta.url);

export default function collect({ by, workers, load }: CollectParameters): Measured {
  const team = new ThreadTeam<SerializeJob>(THREAD_MODULE, workers);
  const target = blobTarget(load);
  const properties = INSTANCES * load.nodes * load.properties;
  const pass = by === 'transfer' ? overBuffers(team, load, target) : overObjects(by, team, load, target);
  return { measure: async () => Number(await pass()) / properties };
}

function overObjects(
  by: 'objects' | 'property-objects',
  team: ThreadTeam<SerializeJob>,
  load: Load,
  target: Uint8Array,
): () => Promise<bigint> {
  const { threads } = team;
  return async () => {
    const batches: ObjectBatch[] = [];
    const jobs = Array.from({ length: threads }, (_, member) => ({
      job: { by, load, member, threads },
    }));
    const { told } = await team.run(jobs, (data) => void batches.push(data as ObjectBatch));
    finish(target, (writer) => writeObjects(writer, INSTANCE_NAMES, batches));
    return process.hrtime.bigint() - told;
  };
}

function overBuffers(team: ThreadTeam<SerializeJob>, load: Load, target: Uint8Array): () => Promise<bigint> {
  const { threads } = team;
  // They go back to the threads with the next job, so that their memory is warm.
  let buffers = Array.from({ length: threads }, () => new ArrayBuffer(target.length));
  return async () => {
    const streams: WireStream[] = [];
    const jobs = buffers.map((buffer, member) => ({
      job: { by: 'transfer', load, member, threads, buffer } as const,
      transfer: [buffer],
    }));
    const { told } = await team.run(jobs, (data) => void streams.push(data as WireStream));
    finish(target, (writer) => writeStreams(writer, INSTANCE_NAMES, streams));
    const time = process.hrtime.bigint() - told;
    buffers = streams.map(({ buffer }) => buffer);
    return time;
  };
}

function finish(target: Uint8Array, write: (writer: DirectWriter) => void): void {
  const writer = new DirectWriter(target);
  writer.beginNode('');
  write(writer);
  writer.endNode();
  writer.finish();
}
