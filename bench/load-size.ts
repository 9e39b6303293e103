import { nodeSize, propertySize } from 'khorus/fdt';
import { INSTANCES, type Load, NAMES } from './load.js';

/** FDT bytes that one instance of a load takes, names included: what its shard declares. */
export function instanceBytes({ nodes, properties }: Pick<Load, 'nodes' | 'properties'>): number {
  let bytes = nodeSize(`load${INSTANCES * 1000}`.length);
  for (let digits = 1, first = 0; first < nodes; digits++) {
    const next = Math.min(nodes, 10 ** digits);
    bytes += (next - first) * nodeSize('node'.length + digits);
    first = next;
  }
  bytes += nodes * properties * propertySize(8);
  for (const name of NAMES) bytes += name.length + 1;
  return bytes;
}

/** Memory for the FDT of all instances; its pages are there. */
export function blobTarget(load: Pick<Load, 'nodes' | 'properties'>): Uint8Array {
  return new Uint8Array(INSTANCES * instanceBytes(load) + 4096).fill(1);
}
