/** Threads that insert a load: into the stage, or in the way of a peer. */
import type { Measured } from '../harness/comparison.js';
import { type TeamJob, ThreadTeam } from '../harness/thread-team.js';
import { INSTANCES, PROPERTIES_PER_NODE } from '../load.js';
import { instanceBytes } from '../load-size.js';
import { clearTable, createTable } from '../peers/property-table.js';
import type { WireStream } from '../peers/wire-stream.js';
import { ReusableStage } from '../reusable-stage.js';
import type { InsertJob, InsertWay } from '../threads/insert-thread.js';

export interface InsertParameters {
  readonly into: InsertWay['into'];
  readonly threads: number;
  readonly properties: number;
}

const THREAD_MODULE = new URL('../threads/insert-thread.js', import.meta.url);
/** A small insertion is too short for one sample. */
const PROPERTIES_PER_ROUND = 50_000;

export default function insert({ into, threads, properties }: InsertParameters): Measured {
  const team = new ThreadTeam<InsertJob>(THREAD_MODULE, threads);
  const nodes = properties / PROPERTIES_PER_NODE / INSTANCES;
  const maxBytes = instanceBytes({ nodes, properties: PROPERTIES_PER_NODE });
  const jobs = (wayOf: (member: number) => InsertWay): TeamJob<InsertJob>[] =>
    Array.from({ length: threads }, (_, member) => {
      const way = wayOf(member);
      const transfer = way.into === 'transfer' ? [way.buffer] : [];
      return { job: { ...way, member, threads, nodes, maxBytes }, transfer };
    });
  const once = passOf(into, { team, jobs, properties, nodes, maxBytes });
  return {
    async measure() {
      const times: number[] = [];
      for (let pass = 0; pass < Math.max(1, PROPERTIES_PER_ROUND / properties); pass++) {
        times.push(Number(await once()) / properties);
      }
      return times;
    },
  };
}

interface Inserting {
  readonly team: ThreadTeam<InsertJob>;
  readonly jobs: (wayOf: (member: number) => InsertWay) => TeamJob<InsertJob>[];
  readonly properties: number;
  readonly nodes: number;
  readonly maxBytes: number;
}

/** One insertion of everything, in nanoseconds. */
function passOf(
  into: InsertWay['into'],
  { team, jobs, properties, nodes, maxBytes }: Inserting,
): () => Promise<bigint> {
  switch (into) {
    case 'shard-writer':
    case 'driver-ids':
    case 'driver-strings': {
      const reusable = new ReusableStage({ shardCount: INSTANCES, maxBytes: maxBytes * INSTANCES, threads: 2 });
      return async () => {
        const { handle } = reusable.rewind();
        const { began, ended } = await team.run(jobs(() => ({ into, handle })));
        return ended - began;
      };
    }
    case 'property-table':
    case 'locked-table': {
      const table = createTable(properties, nodes * INSTANCES + INSTANCES, 2);
      const words = new Int32Array(table);
      return async () => {
        clearTable(words);
        const { began, ended } = await team.run(jobs(() => ({ into, table })));
        return ended - began;
      };
    }
    case 'objects':
      return async () => {
        const { began, received } = await team.run(jobs(() => ({ into })));
        return received - began;
      };
    case 'transfer': {
      // They go back to the threads with the next job, so that their memory is warm.
      let buffers = Array.from({ length: team.threads }, () => new ArrayBuffer(maxBytes * INSTANCES));
      return async () => {
        const streams: WireStream[] = [];
        const { began, received } = await team.run(
          jobs((member) => ({ into, buffer: buffers[member] as ArrayBuffer })),
          (data) => void streams.push(data as WireStream),
        );
        buffers = streams.map(({ buffer }) => buffer);
        return received - began;
      };
    }
  }
}
