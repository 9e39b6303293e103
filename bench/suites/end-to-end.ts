import { WorkerPool } from 'khorus';
import { HandoverRunner, loadHost } from '../handover-runner.js';
import type { Comparison, Variant } from '../harness/comparison.js';
import { type Goal, medianOf, ratioOf } from '../harness/goals.js';
import type { Suite } from '../harness/suite.js';
import { ThreadTeam } from '../harness/thread-team.js';
import { INSTANCES, type Load, NAMES, PROPERTIES_PER_NODE, writeLoad } from '../load.js';
import { instanceBytes } from '../load-size.js';
import { DirectContext, DirectWriter } from '../peers/direct-writer.js';
import { LibfdtSequential } from '../peers/libfdt-sequential.js';
import { type ObjectBatch, writeObjects } from '../peers/object-tree.js';
import { type WireStream, writeStreams } from '../peers/wire-stream.js';
import type { SerializeJob } from '../threads/serialize-thread.js';

const SIZES = [100_000, 1_000_000];
const THREAD_MODULE = new URL('../threads/serialize-thread.js', import.meta.url);
const INSTANCE_NAMES = Array.from({ length: INSTANCES }, (_, instance) => `load${instance}`);
const HASH = 'hash, 2 workers, strings';
const HASH_IDS = 'hash, 2 workers, ids';
const DIRECT = 'peer: direct writer, main thread, strings';
const CLONE = 'peer: objects by structured clone, 2 workers';
const LIBFDT = 'peer: libfdt in C, one thread';

const title = (properties: number): string => `${properties} properties of 8 bytes, callback to finished blob`;

/** From the drivers' callbacks to the finished blob on the main thread, by the real path and by its peers. */
export const endToEndSuite: Suite = {
  async *comparisons(setting) {
    const libfdt = LibfdtSequential.start();
    if (typeof libfdt === 'string') setting.note(`libfdt's sequential writer is not here: ${libfdt}`);
    else setting.addChild(libfdt.pid);
    const teams = [1, 2].map((threads) => new ThreadTeam<SerializeJob>(THREAD_MODULE, threads));
    const pools = [1, 2].map((threads) => new WorkerPool({ threads }));
    try {
      for (const properties of setting.quick ? SIZES.slice(0, 1) : SIZES) {
        const load = loadOf(properties);
        const { runners, variants } = realPath(load, properties, pools);
        variants.push(...directVariants(load, properties), ...teams.flatMap((team) => threadVariants(load, team)));
        if (typeof libfdt !== 'string') variants.push(...libfdtVariants(load, libfdt));
        yield { ...comparisonOf(properties), variants };
        await Promise.all(runners.map((runner) => runner[Symbol.asyncDispose]()));
      }
    } finally {
      await Promise.all([...teams, ...pools].map((threads) => threads[Symbol.asyncDispose]()));
      if (typeof libfdt !== 'string') libfdt[Symbol.dispose]();
    }
  },

  goals({ comparisons }) {
    return comparisons.flatMap((result, index): Goal[] => {
      const at = `${SIZES[index]} properties: `;
      const nanoseconds = { unit: 'ns/property', better: 'less' } as const;
      return [
        {
          ...{ name: `${at}structured clone / hash`, unit: 'x', better: 'more', pass: 8, aim: 12 },
          ...ratioOf(result, CLONE, HASH),
        },
        {
          ...{ name: `${at}libfdt with name sharing / hash`, unit: 'x', better: 'more', pass: 5, aim: 8 },
          ...ratioOf(result, LIBFDT, HASH),
        },
        {
          ...{ name: `${at}hash / direct writer, strings`, unit: 'x', better: 'less', pass: 1.5, aim: 1.2 },
          ...ratioOf(result, HASH, DIRECT),
        },
        { ...{ name: `${at}${HASH}`, ...nanoseconds, pass: 45, aim: 38 }, ...medianOf(result, HASH) },
        { ...{ name: `${at}${HASH_IDS}`, ...nanoseconds, pass: 35, aim: 28 }, ...medianOf(result, HASH_IDS) },
      ];
    });
  },
};

function loadOf(properties: number): Load {
  const nodes = properties / PROPERTIES_PER_NODE / INSTANCES;
  return { nodes, properties: PROPERTIES_PER_NODE, names: 'strings', workSteps: 0 };
}

function comparisonOf(properties: number): Omit<Comparison, 'variants'> {
  const rounds = properties > 100_000 ? 7 : 15;
  return { title: title(properties), unit: 'ns/property', reference: HASH, rounds };
}

/** A Coordinator with a Host, warm: its threads and the host's memory stay from round to round. */
function realPath(
  load: Load,
  properties: number,
  pools: readonly WorkerPool[],
): { runners: HandoverRunner[]; variants: Variant[] } {
  const host = loadHost();
  const runners: HandoverRunner[] = [];
  const variants = pools.flatMap((pool) =>
    (['strings', 'ids'] as const).map((names): Variant => {
      const runner = new HandoverRunner(host, { mode: 'hash', pool, load: { ...load, names } });
      runners.push(runner);
      const workers = `${pool.threads} worker${pool.threads === 1 ? '' : 's'}`;
      return {
        name: `hash, ${workers}, ${names}`,
        measure: async () => (await runner.serializeAndFinalize()) / properties,
      };
    }),
  );
  return { runners, variants };
}

/** Room for the blob, in memory that is there. */
function newTarget(load: Load): Uint8Array {
  return new Uint8Array(INSTANCES * instanceBytes(load) + 4096).fill(1);
}

function directVariants(load: Load, properties: number): Variant[] {
  const target = newTarget(load);
  return (['strings', 'ids'] as const).map((names) => ({
    name: `peer: direct writer, main thread, ${names}`,
    measure() {
      const start = process.hrtime.bigint();
      writeDirectly(target, { ...load, names });
      return Number(process.hrtime.bigint() - start) / properties;
    },
  }));
}

/** The whole FDT of a load by the direct writer; its size. */
function writeDirectly(target: Uint8Array, load: Load): number {
  const writer = new DirectWriter(target);
  writer.beginNode('');
  for (const [instance, name] of INSTANCE_NAMES.entries()) {
    const context = new DirectContext(writer, name);
    writeLoad(context, load, instance);
    context.end();
  }
  writer.endNode();
  return writer.finish();
}

/** Workers that send what the callbacks wrote to the main thread, which makes the FDT of it. */
function threadVariants(load: Load, team: ThreadTeam<SerializeJob>): Variant[] {
  const target = newTarget(load);
  const properties = INSTANCES * load.nodes * load.properties;
  const workers = `${team.threads} worker${team.threads === 1 ? '' : 's'}`;
  let buffers = Array.from({ length: team.threads }, () => new ArrayBuffer(target.length));
  return [
    {
      name: `peer: objects by structured clone, ${workers}`,
      async measure() {
        const { told } = await overObjects(team, load, target);
        return Number(process.hrtime.bigint() - told) / properties;
      },
      leavesGarbage: true,
    },
    {
      name: `peer: transferred buffers, ${workers}, strings`,
      async measure() {
        const { told, streams } = await overBuffers(team, load, buffers, target);
        const time = process.hrtime.bigint() - told;
        buffers = streams.map(({ buffer }) => buffer);
        return Number(time) / properties;
      },
    },
  ];
}

/** The whole FDT by way of objects; its size. */
async function overObjects(team: ThreadTeam<SerializeJob>, load: Load, target: Uint8Array) {
  const batches: ObjectBatch[] = [];
  const { threads } = team;
  const jobs = Array.from({ length: threads }, (_, member) => ({
    job: { by: 'objects', load, member, threads } as const,
  }));
  const { told } = await team.run(jobs, (data) => void batches.push(data as ObjectBatch));
  const writer = new DirectWriter(target);
  writer.beginNode('');
  writeObjects(writer, INSTANCE_NAMES, batches);
  writer.endNode();
  return { told, size: writer.finish() };
}

/** The whole FDT by way of buffers that are transferred; its size. */
async function overBuffers(
  team: ThreadTeam<SerializeJob>,
  load: Load,
  buffers: readonly ArrayBuffer[],
  target: Uint8Array,
) {
  const streams: WireStream[] = [];
  const { threads } = team;
  const jobs = buffers.map((buffer, member) => ({
    job: { by: 'transfer', load, member, threads, buffer } as const,
    transfer: [buffer],
  }));
  const { told } = await team.run(jobs, (data) => void streams.push(data as WireStream));
  const writer = new DirectWriter(target);
  writer.beginNode('');
  writeStreams(writer, INSTANCE_NAMES, streams);
  writer.endNode();
  return { told, streams, size: writer.finish() };
}

function libfdtVariants(load: Load, libfdt: LibfdtSequential): Variant[] {
  const { nodes, properties } = load;
  return [true, false].map((dedup) => ({
    name: dedup ? LIBFDT : 'peer: libfdt in C, NO_NAME_DEDUP',
    measure: async () =>
      (await libfdt.build({ instances: INSTANCES, nodes, properties, names: NAMES.length, dedup })) /
      (INSTANCES * nodes * properties),
  }));
}
