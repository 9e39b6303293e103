import type { KexecImage } from '../arch/index.js';
import { KhoError } from '../errors.js';
import {
  type Folio,
  hex,
  Memblock,
  PAGE_SIZE,
  parseCommandLine,
  reserveBootAllocations,
  reviveNamedMemory,
  type Scratch,
  walkRadixTree,
} from '../memblock/index.js';
import { type BootedMachine, freePagesOf, LOW_RESERVED, reserveGuestMemory } from './cold-boot.js';
import type { RunOptions } from './handover-run.js';
import { Host } from './host.js';
import { Inheritance, type InheritedExtents, joinObjects, type ShardName } from './inheritance.js';
import type { Finalized } from './output.js';
import type { Reservations } from './reservations.js';
import { type FrozenInstance, restoreFailures } from './restore-check.js';
import type { SuccessorReport } from './run-record.js';

/** The kernel that was booted, where it differs from the one that handed over. */
export interface NextKernel {
  /** Its release, which it will name in `kexec-metadata`; the same unless said. */
  readonly release?: string;
}

/** What a finished handover leaves in memory. */
interface Estate extends Pick<Finalized, 'root' | 'subtrees'> {
  readonly host: Host;
  readonly plan: RunOptions;
  readonly reservations: Reservations;
  readonly kexec: KexecImage;
  readonly instances: readonly FrozenInstance[];
}

/**
 * The host of the next kernel, after it has restored everything: what Handover.nextHost does. The estate's host is over.
 * Errors change nothing.
 */
export function bootNextHost(estate: Estate, report: SuccessorReport, { release }: NextKernel = {}): Host {
  const { host, plan } = estate;
  host.checkRunning();
  checkReport(estate, report);
  const cmdline = plan.kexec?.commandLine ?? host.options.cmdline;
  const parameters = parseCommandLine(cmdline, { mode: 'kernel', khoDefault: true });
  if (!parameters.kho) {
    throw new KhoError('KHO_EOPNOTSUPP', 'KHO is off in the next kernel: its command line says so', {
      field: 'cmdline',
    });
  }
  const { memory, arch, firmware } = host;
  const inheritance = inheritanceOf(estate, report);
  const memblock = bootMemblock(estate, inheritance);
  const { reserved, warnings } = reviveNamedMemory(memblock, parameters.reserveMem, [...host.reserveMem]);
  if (warnings[0] !== undefined) throw new KhoError('KHO_EIMAGE', warnings.join('; '));
  const reserveMem = reserved.map(({ name, address, size }) => ({ name, address, size }));
  // Linux 7.2 reserves only what is preserved, whole pages, and would hand the rest of an area's last page out again.
  for (const { address, size } of reserveMem) memblock.reserve(address, size);
  const scratch: Scratch = { ...host.scratch, table: estate.kexec.scratchArray.address };
  const options = { ...host.options, cmdline, ...(release !== undefined && { release }) };
  const { kexecCount, previousRelease } = report;
  const taken = inheritance.extents.flatMap(({ ranges }) =>
    ranges.map(({ base, pages }) => ({ address: base, pages })),
  );
  const pages = freePagesOf(
    memory,
    memblock,
    taken.sort((a, b) => a.address - b.address),
  );
  const machine: BootedMachine = {
    ...{ options, arch, firmware, parameters, memory, memblock, reserveMem, scratch, pages },
    ...{ kexecCount, previousRelease, inheritance },
  };
  const next = new Host(options, machine);
  host.end();
  return next;
}

/** Only a handover that came through whole has a next host. */
function checkReport({ host, root, subtrees, instances }: Estate, report: SuccessorReport): void {
  // Where all is in one FDT, nobody is told the count.
  const count = subtrees.length > 0 ? host.kexecCount + 1 : 0;
  if (report.bootRecord.root !== root.address || report.kexecCount !== count) {
    const said = `root at ${hex(report.bootRecord.root)}, kexec count ${report.kexecCount}`;
    const text = `the report is of another handover (${said}), not of this one (${hex(root.address)}, ${count})`;
    throw new KhoError('KHO_EINVAL', text, { field: 'report' });
  }
  const [first, ...others] = restoreFailures(instances, report);
  if (first === undefined) return;
  const more = others.length === 0 ? '' : `, and ${others.length} more`;
  const text = `a handover that was not restored whole has no next host: ${first.message}${more}`;
  throw new KhoError('KHO_EINVAL', text, { field: 'report' });
}

/** Every shard of which the successor's drivers kept an object, with its extents. */
function inheritanceOf({ host, reservations }: Estate, report: SuccessorReport): Inheritance {
  const discarded = new Set(report.discarded.map(({ address }) => address));
  const kept = new Map<string, { shard: ShardName; index: number; objects: Folio[] }>();
  walkRadixTree(host.memory, reservations.tracker.root, (address, order) => {
    const granted = discarded.has(address) ? undefined : reservations.shardAt(address);
    if (granted === undefined) return;
    const { index, owner: shard } = granted;
    const key = `${shard.kind} ${index}`;
    const entry = kept.get(key) ?? { shard, index, objects: [] };
    kept.set(key, entry);
    entry.objects.push({ address, order });
  });
  return new Inheritance(
    Array.from(kept.values(), ({ shard, index, objects }): [ShardName, InheritedExtents] => {
      const table = shard.kind === 'guest' ? reservations.guestExtents : reservations.extents;
      const { declaredPages, ranges } = table.extent(index);
      return [shard, { pages: declaredPages, ranges, claimed: joinObjects(objects) }];
    }),
  );
}

/**
 * memblock once drivers have restored. The kernel itself boots in scratch alone, as it has to until it knows what is
 * preserved; of the memory outside only the drivers' is taken: the blobs, what drivers discarded and what was the old
 * kernel's own is free.
 */
function bootMemblock({ host, kexec }: Estate, inheritance: Inheritance): Memblock {
  const memblock = new Memblock();
  memblock.allowResize();
  const areas = host.scratch.areas.filter(({ size }) => size > 0);
  for (const { base, size, nid } of host.memory.ranges) memblock.addNode(base, size, nid);
  for (const { address, size } of areas) memblock.markKhoScratch(address, size);
  const { kernel, scratchArray, record } = kexec;
  memblock.reserve(scratchArray.address, scratchArray.memorySize);
  memblock.reserve(record.address, record.memorySize);
  memblock.setKhoScratchOnly();
  const image = kernel && { address: kernel.address, size: kernel.memorySize };
  reserveBootAllocations(memblock, {
    cpus: host.options.cpus,
    ...(image && { kernel: image }),
    reserved: [LOW_RESERVED],
  });
  reserveGuestMemory(memblock, host.memory);
  for (const { base, pages } of inheritance.extents.flatMap(({ ranges }) => ranges)) {
    memblock.reserve(base, pages * PAGE_SIZE);
  }
  // Only now: the reserved array may have had to grow, and not into what it did not list yet.
  memblock.clearKhoScratchOnly();
  // From here on it is as after a cold boot: the page allocator gets none of it.
  for (const { address, size } of areas) memblock.reserve(address, size);
  return memblock;
}
