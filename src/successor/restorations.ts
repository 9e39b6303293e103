import {
  decodeKexecMetadata,
  followSubFdts,
  KEXEC_METADATA_NAME,
  type KexecMetadata,
  type KhoRoot,
  MEMBLOCK_SUBTREE_NAME,
  type NamedReservation,
  type OneFdt,
  readMemblockFdt,
  readReservations,
  readSubFdtLinks,
  type SubFdtLink,
  type Subtree,
} from '../abi/index.js';
import type { FailureRecord } from '../coordinator/index.js';
import { KhoError } from '../errors.js';
import { type FdtNode, FdtReader } from '../fdt/index.js';
import { hex, type ImageMemory, parseCommandLine, reviveNamedMemory } from '../memblock/index.js';
import type { Driver, SubBlob } from '../workers/index.js';
import type { EarlyBoot } from './early-boot.js';
import { failureRecord } from './failure.js';

/** One instance that is to be restored. */
export interface Restoration {
  readonly driver: Driver;
  /** Absent for a raw blob. */
  readonly node?: FdtNode;
  /** Where the driver's state lies: its sub-blob, or the one FDT. */
  readonly blob: SubBlob;
}

/** What a handover holds for this kernel's drivers, and for its core. */
export interface Restorations {
  readonly work: Restoration[];
  /** Where FDTs lie that the drivers' FDTs link to. */
  readonly linked: SubFdtLink[];
  readonly revived: NamedReservation[];
  /** Undefined where the handover has none: before kho-v3. */
  metadata?: KexecMetadata;
  /** What could not be read, or nobody here knows. */
  readonly failures: FailureRecord[];
}

/** Finds the instances to restore, and takes over the named reservations. What is wrong is a failure; it hides nothing. */
export function findRestorations(boot: EarlyBoot, memory: ImageMemory, drivers: readonly Driver[]): Restorations {
  const found: Restorations = { work: [], linked: [], revived: [], failures: [] };
  if (boot.handover.form === 'one-fdt') inOneFdt(boot, boot.handover.fdt, drivers, found);
  else inSubBlobs(boot, boot.handover.root, memory, drivers, found);
  return found;
}

function inSubBlobs(
  boot: EarlyBoot,
  { subtrees }: KhoRoot,
  memory: ImageMemory,
  drivers: readonly Driver[],
  found: Restorations,
): void {
  const read = (link: SubFdtLink): Uint8Array => {
    if (boot.preserved.covers(link.address, link.size)) return memory.read(link.address, link.size);
    throw new KhoError(
      'KHO_ETRACKER',
      `the sub-FDT at ${hex(link.address)} (${link.size} bytes) is not preserved`,
      link,
    );
  };
  for (const blob of subtrees) {
    try {
      const bytes = memory.read(blob.address, blob.size);
      if (blob.name === KEXEC_METADATA_NAME) found.metadata = decodeKexecMetadata(bytes);
      else if (blob.name === MEMBLOCK_SUBTREE_NAME) found.revived.push(...revive(boot, readMemblockFdt(bytes)));
      else inBlob(blob, bytes, drivers, found, read);
    } catch (error) {
      found.failures.push(failureRecord(error, { driver: blob.name, address: blob.address }));
    }
  }
}

/**
 * The instances of a driver's sub-blob with the driver that knows its format: a raw one by the name of the sub-blob, an
 * FDT by its compatible; KHO_ENOENT if none does. A node may hold the state, or link to FDTs that do.
 */
function inBlob(
  blob: Subtree,
  bytes: Uint8Array,
  drivers: readonly Driver[],
  found: Restorations,
  read: (link: SubFdtLink) => Uint8Array,
): void {
  const raw = drivers.find((candidate) => candidate.blob === 'raw' && candidate.name === blob.name);
  if (raw !== undefined) {
    found.work.push({ driver: raw, blob });
    return;
  }
  const { root } = FdtReader.open(bytes);
  const driver = driverOf(root, drivers, `subtree '${blob.name}'`);
  for (const node of root.children()) {
    try {
      const links = readSubFdtLinks(node) ?? [];
      const [first] = links;
      found.linked.push(...links);
      if (first === undefined) found.work.push({ driver, node, blob });
      else found.work.push({ driver, node: followSubFdts(node.name, links, read), blob: first });
    } catch (error) {
      found.failures.push(failureRecord(error, { driver: driver.name, instance: node.name, address: blob.address }));
    }
  }
}

function inOneFdt(boot: EarlyBoot, fdt: OneFdt, drivers: readonly Driver[], found: Restorations): void {
  const address = boot.record.root;
  const blob = { address, size: fdt.reader.totalSize };
  try {
    found.revived.push(...revive(boot, readReservations(fdt)));
  } catch (error) {
    found.failures.push(failureRecord(error, { driver: fdt.reservations?.name ?? MEMBLOCK_SUBTREE_NAME, address }));
  }
  for (const node of fdt.drivers) {
    try {
      const driver = driverOf(node, drivers, `node ${node.path}`);
      found.work.push(...[...node.children()].map((instance) => ({ driver, node: instance, blob })));
    } catch (error) {
      found.failures.push(failureRecord(error, { driver: node.name, address }));
    }
  }
}

/**
 * Takes over the named reservations that the next kernel's own command line asks for. KHO_EIMAGE for one that the handover
 * does not have as it is asked for.
 */
function revive({ record, memblock, preserved }: EarlyBoot, handedOver: readonly NamedReservation[]) {
  const { reserveMem } = parseCommandLine(record.commandLine, { mode: 'kernel', khoDefault: true });
  const { reserved, warnings } = reviveNamedMemory(memblock, reserveMem, [...handedOver]);
  if (warnings[0] !== undefined) throw new KhoError('KHO_EIMAGE', warnings.join('; '));
  for (const { address, size } of reserved) preserved.settleRange(address, size, 'claimed');
  return reserved.map(({ name, address, size }) => ({ name, address, size }));
}

/** The driver of a node, by its compatible. KHO_ENOENT if there is none. */
function driverOf(node: FdtNode, drivers: readonly Driver[], where: string): Driver {
  const compatible = node.property('compatible')?.string() ?? '';
  const driver = drivers.find((candidate) => candidate.blob !== 'raw' && candidate.compatible === compatible);
  if (driver !== undefined) return driver;
  throw new KhoError('KHO_ENOENT', `no driver here is compatible with '${compatible}' (${where})`);
}
