// npm run bench: what one property costs on its way through the stage. Figures of one machine at one moment: compare
// the rows of one run with each other, not with another run's.
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { Bench } from 'tinybench';
import { FdtWriter } from '../dist/fdt/index.js';
import { Finalizer } from '../dist/hashstage/finalizer.js';
import { driverRoot, ShardWriter, Stage } from '../dist/hashstage/index.js';

const NODES = 2000;
const NAMES = Array.from({ length: 16 }, (_, index) => `property-${index}`);
const PROPERTIES = NODES * NAMES.length;

function fill(stage, nameOf) {
  const writer = new ShardWriter(stage, 0, 2 ** 24);
  for (let node = 0; node < NODES; node++) {
    const ref = writer.open(driverRoot(0), `node${node}`);
    for (let name = 0; name < NAMES.length; name++) writer.u64(ref, nameOf(stage, name), node, name);
  }
}
const newStage = () => Stage.create({ shardCount: 1, maxBytes: 2 ** 24, threads: 1, maxNames: 64 });
const byString = (stage, name) => stage.nameId(NAMES[name]);
const ids = NAMES.map((_, index) => index);

const filled = newStage();
fill(filled, byString);
const finalizer = new Finalizer(filled);
const target = new Uint8Array(2 ** 21);
const bench = new Bench({ time: 1000, warmupTime: 500 });
bench
  .add('stage: write, string names, fresh memory', () => fill(newStage(), byString))
  .add('stage: write, name ids, fresh memory', () => {
    const stage = newStage();
    for (const name of NAMES) stage.nameId(name);
    fill(stage, (_, name) => ids[name]);
  })
  .add('finalizer: stage to FDT', () => finalizer.render([0], 'bench-v1', target))
  .add('FdtWriter: direct, one thread', () => {
    const writer = new FdtWriter({ into: target, strings: NAMES });
    writer.beginNode('');
    for (let node = 0; node < NODES; node++) {
      writer.beginNode(`node${node}`);
      for (const name of NAMES) writer.u64(name, node, 'little');
      writer.endNode();
    }
    writer.endNode();
    writer.finish();
  });
await bench.run();
const pressure = () => {
  try {
    return readFileSync('/proc/pressure/cpu', 'utf8').split('\n')[0];
  } catch {
    return 'not known here';
  }
};
console.log(
  `${PROPERTIES} properties of 8 bytes; Node ${process.version}, ${availableParallelism()} CPUs; pressure: ${pressure()}`,
);
for (const { name, result } of bench.tasks) {
  const { p50, p75 } = result.latency;
  const each = (milliseconds) => ((milliseconds * 1e6) / PROPERTIES).toFixed(1).padStart(8);
  console.log(`${name.padEnd(40)} ${each(p50)} ns/property (median) ${each(p75)} (p75)`);
}
