/** A thread that inserts a load into whatever the job says: the stage, or one of its peers. */
import { driverRoot, ShardWriter, Stage, type StageHandle } from '#dist/hashstage/index.js';
import { CallbackScope } from '#dist/workers/callback-scope.js';
import type { PropertyName } from '#dist/workers/driver.js';
import { SinkNodeWriter } from '#dist/workers/node-writer.js';
import { StageSink } from '#dist/workers/stage-sink.js';
import { type PreparedJob, serveTeam } from '../harness/team-member.js';
import { INSTANCES, NAMES, PROPERTIES_PER_NODE } from '../load.js';
import { LockedTable } from '../peers/locked-table.js';
import { type ObjectBatch, ObjectContext } from '../peers/object-tree.js';
import { PropertyTable } from '../peers/property-table.js';
import { SequentialContext } from '../peers/sequential-context.js';
import { StreamWriter } from '../peers/wire-stream.js';

export type InsertWay =
  | { readonly into: 'shard-writer' | 'driver-strings' | 'driver-ids'; readonly handle: StageHandle }
  | { readonly into: 'property-table' | 'locked-table'; readonly table: SharedArrayBuffer }
  | { readonly into: 'objects' }
  | { readonly into: 'transfer'; readonly buffer: ArrayBuffer };

export type InsertJob = InsertWay & {
  /** This thread writes the instances whose number leaves this rest. */
  readonly member: number;
  readonly threads: number;
  /** Nodes of each instance. */
  readonly nodes: number;
  readonly maxBytes: number;
};

const NAME_MASK = NAMES.length - 1;
let nodeNames: string[] = [];

serveTeam<InsertJob>((job) => {
  // Made before the clock starts: what is measured is the table, not the making of text.
  if (nodeNames.length !== job.nodes) nodeNames = Array.from({ length: job.nodes }, (_, index) => `node${index}`);
  const instances: number[] = [];
  for (let instance = job.member; instance < INSTANCES; instance += job.threads) instances.push(instance);
  switch (job.into) {
    case 'shard-writer':
      return shardWriter(Stage.attach(job.handle), instances, job.maxBytes);
    case 'driver-strings':
    case 'driver-ids':
      return driverApi(Stage.attach(job.handle), instances, job.maxBytes, job.into === 'driver-ids');
    case 'property-table':
      return tableJob(new PropertyTable(job.table), instances);
    case 'locked-table':
      return tableJob(new LockedTable(job.table), instances);
    case 'objects':
      return objects(instances);
    case 'transfer':
      return transfer(job.buffer, instances);
  }
});

function shardWriter(stage: Stage, instances: readonly number[], maxBytes: number): PreparedJob {
  const ids = NAMES.map((name) => stage.nameId(name));
  return {
    run() {
      for (const instance of instances) {
        const writer = new ShardWriter(stage, instance, maxBytes);
        const root = writer.open(driverRoot(0), `load${instance}`);
        for (let index = 0; index < nodeNames.length; index++) {
          const node = writer.open(root, nodeNames[index] as string);
          for (let property = 0; property < PROPERTIES_PER_NODE; property++) {
            writer.u64(node, ids[(index + property) & NAME_MASK] as number, 0, index);
          }
        }
      }
    },
  };
}

/** What a driver's callback goes through: the scope's check, the values' check, and the names' Map if they are text. */
function driverApi(stage: Stage, instances: readonly number[], maxBytes: number, byId: boolean): PreparedJob {
  const names = new Map<string, number>();
  const known = NAMES.map((name) => stage.nameId(name) as PropertyName);
  for (const [index, name] of NAMES.entries()) names.set(name, known[index] as number);
  return {
    run() {
      for (const instance of instances) {
        const scope = new CallbackScope('serialize', names);
        const sink = new StageSink(stage, { index: instance, driver: 0, instance: `load${instance}`, maxBytes });
        const root = new SinkNodeWriter(scope, sink, sink.root);
        if (byId) writeById(root, known);
        else writeByText(root);
      }
    },
  };
}

function writeById(root: SinkNodeWriter, ids: readonly PropertyName[]): void {
  for (let index = 0; index < nodeNames.length; index++) {
    const node = root.node(nodeNames[index] as string);
    for (let property = 0; property < PROPERTIES_PER_NODE; property++) {
      node.u64(ids[(index + property) & NAME_MASK] as PropertyName, index);
    }
  }
}

function writeByText(root: SinkNodeWriter): void {
  for (let index = 0; index < nodeNames.length; index++) {
    const node = root.node(nodeNames[index] as string);
    for (let property = 0; property < PROPERTIES_PER_NODE; property++) {
      node.u64(NAMES[(index + property) & NAME_MASK] as string, index);
    }
  }
}

// A variant has a process of its own, so that in each this calls one kind of table alone.
function tableJob(table: PropertyTable | LockedTable, instances: readonly number[]): PreparedJob {
  return {
    run() {
      for (const instance of instances) {
        const root = table.node(0, `load${instance}`);
        for (let index = 0; index < nodeNames.length; index++) {
          const node = table.node(root, nodeNames[index] as string);
          for (let property = 0; property < PROPERTIES_PER_NODE; property++) {
            table.u64(node, (index + property) & NAME_MASK, 0, index);
          }
        }
      }
    },
  };
}

function objects(instances: readonly number[]): PreparedJob {
  return {
    run(send) {
      for (const instance of instances) writeObjects(instance, send);
    },
  };
}

function writeObjects(instance: number, send: (batch: ObjectBatch) => void): void {
  const context = new ObjectContext(`load${instance}`, send);
  for (let index = 0; index < nodeNames.length; index++) {
    const node = context.node(nodeNames[index] as string);
    for (let property = 0; property < PROPERTIES_PER_NODE; property++) {
      node.u64(NAMES[(index + property) & NAME_MASK] as string, index);
    }
  }
  context.end();
}

function transfer(buffer: ArrayBuffer, instances: readonly number[]): PreparedJob {
  return {
    run(send) {
      const writer = new StreamWriter(buffer);
      for (const instance of instances) {
        writer.beginInstance(`load${instance}`);
        const context = new SequentialContext(writer);
        for (let index = 0; index < nodeNames.length; index++) {
          const node = context.node(nodeNames[index] as string);
          for (let property = 0; property < PROPERTIES_PER_NODE; property++) {
            node.u64(NAMES[(index + property) & NAME_MASK] as string, index);
          }
        }
        context.end();
      }
      send(writer.finish(), [buffer]);
    },
  };
}
