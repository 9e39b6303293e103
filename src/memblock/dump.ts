import { hex } from './address.js';
import { pa } from './memblock-log.js';
import type { MemblockType } from './memblock-type.js';
import { isValidNode, regionEnd } from './region.js';

/** The text of memblock_dump_all(): what a kernel with `memblock=debug` on its command line prints, less time stamps. */
export function dumpMemblock(memory: MemblockType, reserved: MemblockType): string {
  const lines = [
    'MEMBLOCK configuration:',
    ` memory size = ${pa(memory.totalSize)} reserved size = ${pa(reserved.totalSize)}`,
  ];
  for (const type of [memory, reserved]) {
    lines.push(` ${type.name}.cnt  = ${hex(type.regions.length)}`);
    for (const [index, region] of type.regions.entries()) {
      const node = isValidNode(region.nid) ? ` on node ${region.nid}` : '';
      const place = `[${pa(region.base)}-${pa(regionEnd(region) - 1)}], ${pa(region.size)} bytes`;
      lines.push(` ${type.name}[${hex(index)}]\t${place}${node} flags: ${hex(region.flags)}`);
    }
  }
  return `${lines.join('\n')}\n`;
}
