/** The direct writer: the callbacks and the writing on one thread, the main one. */
import type { Measured } from '../harness/comparison.js';
import { INSTANCE_NAMES, INSTANCES, type Load, writeLoad } from '../load.js';
import { blobTarget } from '../load-size.js';
import { DirectWriter } from '../peers/direct-writer.js';
import { SequentialContext } from '../peers/sequential-context.js';

export default function direct({ load }: { readonly load: Load }): Measured {
  const target = blobTarget(load);
  return {
    measure() {
      const start = process.hrtime.bigint();
      writeDirectly(target, load);
      return Number(process.hrtime.bigint() - start) / (INSTANCES * load.nodes * load.properties);
    },
  };
}

/** The whole FDT of a load; its size. */
export function writeDirectly(target: Uint8Array, load: Load): number {
  const writer = new DirectWriter(target);
  writer.beginNode('');
  for (const [instance, name] of INSTANCE_NAMES.entries()) {
    writer.beginNode(name);
    const context = new SequentialContext(writer);
    writeLoad(context, load, instance);
    context.end();
  }
  writer.endNode();
  return writer.finish();
}
