import { driverRoot, ShardWriter, type Stage } from '#dist/hashstage/index.js';
import type { Comparison, Setting, Variant } from '../harness/comparison.js';
import type { Goal } from '../harness/goals.js';
import type { Suite } from '../harness/suite.js';
import { ThreadTeam } from '../harness/thread-team.js';
import { INSTANCES, NAMES, PROPERTIES_PER_NODE } from '../load.js';
import { instanceBytes } from '../load-size.js';
import { LibfdtSequential } from '../peers/libfdt-sequential.js';
import { clearTable, createTable } from '../peers/property-table.js';
import type { WireStream } from '../peers/wire-stream.js';
import { ReusableStage } from '../reusable-stage.js';
import type { InsertJob, InsertWay } from '../threads/insert-thread.js';

const SIZES = [10_000, 100_000, 1_000_000];
const THREAD_MODULE = new URL('../threads/insert-thread.js', import.meta.url);
const REFERENCE = 'ShardWriter, 1 thread';

/** The shared table: insertion by one and two threads beside its peers, and lookup, removal and replacement. */
export const stageSuite: Suite = {
  async *comparisons(setting) {
    const libfdt = LibfdtSequential.start();
    if (typeof libfdt === 'string') setting.note(`libfdt's sequential writer is not here: ${libfdt}`);
    else setting.addChild(libfdt.pid);
    const teams = [1, 2].map((threads) => new ThreadTeam<InsertJob>(THREAD_MODULE, threads));
    try {
      for (const properties of setting.quick ? SIZES.slice(0, 2) : SIZES) {
        yield insertion(properties, teams, typeof libfdt === 'string' ? undefined : libfdt, setting);
      }
    } finally {
      await Promise.all(teams.map((team) => team[Symbol.asyncDispose]()));
      if (typeof libfdt !== 'string') libfdt[Symbol.dispose]();
    }
    for (const nodes of [100, 1000]) yield changes(nodes);
  },

  goals({ facts }) {
    return SIZES.flatMap((properties): Goal[] => {
      const fact = facts.find(({ name }) => name === tableFact(properties));
      if (fact === undefined) return [];
      return [{ name: fact.name, unit: fact.unit, better: 'less', pass: 28, aim: 25, value: fact.value }];
    });
  },
};

const tableFact = (properties: number): string => `table of ${properties} properties, arenas and node slots`;

function insertion(
  properties: number,
  teams: readonly ThreadTeam<InsertJob>[],
  libfdt: LibfdtSequential | undefined,
  setting: Setting,
): Comparison {
  const nodes = properties / PROPERTIES_PER_NODE / INSTANCES;
  const maxBytes = instanceBytes({ nodes, properties: PROPERTIES_PER_NODE });
  const reusable = new ReusableStage({ shardCount: INSTANCES, maxBytes: maxBytes * INSTANCES, threads: 2 });
  const table = createTable(properties, properties / PROPERTIES_PER_NODE + INSTANCES, 2);
  const tableWords = new Int32Array(table);
  const variants: Variant[] = [];
  for (const team of teams) {
    const { threads } = team;
    const name = (what: string): string => `${what}, ${threads} thread${threads === 1 ? '' : 's'}`;
    const jobs = (way: InsertWay): { job: InsertJob }[] =>
      Array.from({ length: threads }, (_, member) => ({ job: { ...way, member, threads, nodes, maxBytes } }));
    const threadTime = async (way: InsertWay): Promise<number> => {
      const { began, ended } = await team.run(jobs(way));
      return Number(ended - began) / properties;
    };
    // A small insertion is too short for one sample.
    const samples = (measure: () => Promise<number>) => async (): Promise<number[]> => {
      const times: number[] = [];
      for (let pass = 0; pass < Math.max(1, 50_000 / properties); pass++) times.push(await measure());
      return times;
    };
    const onStage = (what: string, into: 'shard-writer' | 'driver-strings' | 'driver-ids'): Variant => ({
      name: name(what),
      measure: samples(async () => {
        const stage = reusable.rewind();
        const time = await threadTime({ into, handle: stage.handle });
        if (threads === 1 && into === 'shard-writer') noteTable(properties, stage, setting);
        return time;
      }),
    });
    const inTable = (what: string, into: 'property-table' | 'locked-table'): Variant => ({
      name: name(what),
      measure: samples(() => {
        clearTable(tableWords);
        return threadTime({ into, table });
      }),
    });
    variants.push(
      onStage('ShardWriter', 'shard-writer'),
      onStage('driver API, ids', 'driver-ids'),
      onStage('driver API, strings', 'driver-strings'),
      inTable('peer: table of properties', 'property-table'),
      inTable('peer: one global lock', 'locked-table'),
      transferred(name('peer: transferred buffers'), team, jobs, properties),
      {
        name: name('peer: objects by structured clone'),
        async measure() {
          const { began, received } = await team.run(jobs({ into: 'objects' }));
          return Number(received - began) / properties;
        },
        leavesGarbage: true,
      },
    );
  }
  if (libfdt !== undefined) {
    for (const dedup of [true, false]) {
      const job = { instances: INSTANCES, nodes, properties: PROPERTIES_PER_NODE, names: NAMES.length, dedup };
      variants.push({
        name: `peer: libfdt in C${dedup ? '' : ', NO_NAME_DEDUP'}`,
        measure: async () => (await libfdt.build(job)) / properties,
      });
    }
  }
  return {
    title: `insert ${properties} properties of 8 bytes, ${PROPERTIES_PER_NODE} a node, ${NAMES.length} names`,
    unit: 'ns/property',
    reference: REFERENCE,
    variants,
    rounds: properties > 100_000 ? 7 : 15,
  };
}

/** The buffers go back to the threads with the next job, so that their memory is warm. */
function transferred(
  name: string,
  team: ThreadTeam<InsertJob>,
  jobs: (way: InsertWay) => { job: InsertJob }[],
  properties: number,
): Variant {
  // 22 bytes a property and all instances on one thread, with room.
  let buffers = Array.from({ length: team.threads }, () => new ArrayBuffer(properties * 24 + 4096));
  return {
    name,
    async measure() {
      const streams: WireStream[] = [];
      const withBuffers = jobs({ into: 'objects' }).map(({ job }, member) => {
        const buffer = buffers[member] as ArrayBuffer;
        return { job: { ...job, into: 'transfer' as const, buffer }, transfer: [buffer] };
      });
      const { began, received } = await team.run(withBuffers, (data) => void streams.push(data as WireStream));
      buffers = streams.map(({ buffer }) => buffer);
      return Number(received - began) / properties;
    },
  };
}

/** What the table takes: arenas that were handed out, and the slots that there are for nodes. */
function noteTable(properties: number, stage: Stage, setting: Setting): void {
  const { nodeSlots, nameSlots } = stage.geometry;
  const unit = 'B/property';
  setting.fact(`arenas of ${properties} properties`, stage.arenaBytes / properties, unit);
  setting.fact(`node slots of ${properties} properties`, (nodeSlots * 4) / properties, unit);
  setting.fact(tableFact(properties), (stage.arenaBytes + nodeSlots * 4) / properties, unit);
  setting.fact(`name slots, whatever the number of properties`, nameSlots * 4, 'B');
}

/** One shard of `nodes` nodes, on this thread. */
function changes(nodes: number): Comparison {
  const maxBytes = 2 * instanceBytes({ nodes, properties: PROPERTIES_PER_NODE });
  const reusable = new ReusableStage({ shardCount: 1, maxBytes, threads: 1 });
  const names = Array.from({ length: nodes }, (_, index) => `node${index}`);
  const absent = names.map((name) => `no-${name}`);
  const root = driverRoot(0);
  const fill = (): ShardWriter => {
    const stage = reusable.rewind();
    const ids = NAMES.map((name) => stage.nameId(name));
    const writer = new ShardWriter(stage, 0, maxBytes);
    for (const [index, name] of names.entries()) {
      const node = writer.open(root, name);
      for (let property = 0; property < PROPERTIES_PER_NODE; property++) {
        writer.u64(node, ids[(index + property) % ids.length] as number, 0, index);
      }
    }
    return writer;
  };
  /** `repeat` passes over all nodes, for what is too short to be timed once. */
  const each = (name: string, texts: readonly string[], repeat: number, call: Call): Variant => ({
    name,
    measure() {
      const writer = fill();
      const start = process.hrtime.bigint();
      for (let pass = 0; pass < repeat; pass++) for (const text of texts) call(writer, text);
      return Number(process.hrtime.bigint() - start) / (repeat * texts.length);
    },
  });
  const passes = Math.ceil(100_000 / nodes);
  return {
    title: `one shard of ${nodes} nodes with ${PROPERTIES_PER_NODE} properties each`,
    unit: 'ns/node',
    reference: 'open a node that is there',
    variants: [
      each('open a node that is there', names, passes, (writer, name) => void writer.open(root, name)),
      each('has, found', names, passes, (writer, name) => void writer.has(root, name)),
      each('has, not found', absent, passes, (writer, name) => void writer.has(root, name)),
      each('replace', names, 1, (writer, name) => void writer.replace(root, name)),
      each('remove', names, 1, (writer, name) => void writer.remove(root, name)),
    ],
    rounds: 15,
  };
}

type Call = (writer: ShardWriter, name: string) => void;
