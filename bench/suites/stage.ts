import { fillStage } from '../filled-stage.js';
import type { Comparison, Setting, VariantSpec } from '../harness/comparison.js';
import type { Goal } from '../harness/goals.js';
import type { Suite } from '../harness/suite.js';
import { NAMES, PROPERTIES_PER_NODE } from '../load.js';
import { LibfdtProgram } from '../peers/libfdt-sequential.js';
import type { ChangeParameters } from '../variants/change-nodes.js';
import type { InsertParameters } from '../variants/insert.js';
import type { LibfdtParameters } from '../variants/libfdt.js';

const SIZES = [10_000, 100_000, 1_000_000];
const INSERT = new URL('../variants/insert.js', import.meta.url);
const CHANGE_NODES = new URL('../variants/change-nodes.js', import.meta.url);
const LIBFDT = new URL('../variants/libfdt.js', import.meta.url);

const WAYS: readonly [into: InsertParameters['into'], name: string][] = [
  ['shard-writer', 'ShardWriter'],
  ['driver-ids', 'driver API, ids'],
  ['driver-strings', 'driver API, strings'],
  ['property-table', 'peer: table of properties'],
  ['locked-table', 'peer: one global lock'],
  ['transfer', 'peer: transferred buffers'],
  ['objects', 'peer: objects by structured clone'],
];

const CHANGES: readonly [call: ChangeParameters['call'], name: string][] = [
  ['open', 'open a node that is there'],
  ['has', 'has, found'],
  ['has-not', 'has, not found'],
  ['replace', 'replace'],
  ['remove', 'remove'],
];

/** The shared table: insertion by one and two threads beside its peers; lookup, removal and replacement; its bytes. */
export const stageSuite: Suite = {
  async *comparisons(setting) {
    const libfdt = LibfdtProgram.compile();
    if (typeof libfdt === 'string') setting.note(`libfdt's sequential writer is not here: ${libfdt}`);
    try {
      for (const properties of setting.quick ? SIZES.slice(0, 1) : SIZES) {
        const program = typeof libfdt === 'string' ? undefined : libfdt.file;
        yield insertion(properties, program, setting.rounds(properties > 100_000 ? 7 : 15));
        noteTable(properties, setting);
      }
    } finally {
      if (typeof libfdt !== 'string') libfdt[Symbol.dispose]();
    }
    for (const nodes of [100, 1000]) yield changes(nodes, setting.rounds(15));
  },

  goals({ facts }) {
    return SIZES.flatMap((properties): Goal[] => {
      const fact = facts.find(({ name }) => name === tableFact(properties));
      if (fact === undefined) return [];
      return [{ name: fact.name, unit: fact.unit, better: 'less', pass: 28, aim: 25, value: fact.value }];
    });
  },
};

function insertion(properties: number, libfdt: string | undefined, rounds: number): Comparison {
  const variants: VariantSpec[] = [];
  for (const threads of [1, 2]) {
    for (const [into, name] of WAYS) {
      const parameters: InsertParameters = { into, threads, properties };
      variants.push({ name: `${name}, ${threads} thread${threads === 1 ? '' : 's'}`, module: INSERT, parameters });
    }
  }
  if (libfdt !== undefined) {
    for (const dedup of [true, false]) {
      const parameters: LibfdtParameters = { program: libfdt, properties, dedup };
      variants.push({ name: `peer: libfdt in C${dedup ? '' : ', NO_NAME_DEDUP'}`, module: LIBFDT, parameters });
    }
  }
  return {
    title: `insert ${properties} properties of 8 bytes, ${PROPERTIES_PER_NODE} a node, ${NAMES.length} names`,
    unit: 'ns/property',
    reference: 'ShardWriter, 1 thread',
    variants,
    rounds,
  };
}

const tableFact = (properties: number): string => `table of ${properties} properties, arenas and node slots`;

/** What the table takes: arenas that were handed out, and the slots that there are for nodes. */
function noteTable(properties: number, setting: Setting): void {
  const { stage } = fillStage(properties);
  const { nodeSlots, nameSlots } = stage.geometry;
  const unit = 'B/property';
  setting.fact(`arenas of ${properties} properties`, stage.arenaBytes / properties, unit);
  setting.fact(`node slots of ${properties} properties`, (nodeSlots * 4) / properties, unit);
  setting.fact(tableFact(properties), (stage.arenaBytes + nodeSlots * 4) / properties, unit);
  setting.fact('name slots, whatever the number of properties', nameSlots * 4, 'B');
}

/** One shard on one thread. */
function changes(nodes: number, rounds: number): Comparison {
  return {
    title: `one shard of ${nodes} nodes with ${PROPERTIES_PER_NODE} properties each`,
    unit: 'ns/node',
    reference: 'open a node that is there',
    variants: CHANGES.map(([call, name]) => {
      const parameters: ChangeParameters = { call, nodes };
      return { name, module: CHANGE_NODES, parameters };
    }),
    rounds,
  };
}
