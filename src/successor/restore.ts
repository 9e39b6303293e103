import {
  decodeKexecMetadata,
  KEXEC_METADATA_NAME,
  type KexecMetadata,
  MEMBLOCK_SUBTREE_NAME,
  ROOT_FDT_SIZE,
  readMemblockFdt,
  type Subtree,
} from '../abi/index.js';
import { architectureNamed } from '../arch/index.js';
import {
  type FailureRecord,
  type RestoredInstance,
  type SuccessorReport,
  TimelineRecorder,
} from '../coordinator/index.js';
import { KhoError } from '../errors.js';
import { type FdtNode, FdtReader } from '../fdt/index.js';
import { ImageMemory, parseCommandLine, reviveNamedMemory } from '../memblock/index.js';
import { type Driver, type DriverModule, loadDriver, stateDigest } from '../workers/index.js';
import { bootEarly, type EarlyBoot } from './early-boot.js';
import { DriverRestoreContext } from './restore-context.js';

/** All that a successor is told. Everything else it must find in the image. */
export interface SuccessorInput {
  /** The memory image: a file, offset = physical address. */
  readonly image: string;
  /** The kind of boot record to look for. */
  readonly arch: string;
  readonly drivers: readonly DriverModule[];
}

/** CPUs that the model of boot-time allocations assumes. */
const CPUS = 2;

interface Restoration {
  readonly driver: Driver;
  /** Absent for a raw blob. */
  readonly node?: FdtNode;
  readonly blob: Subtree;
}

/**
 * The next kernel: boots from the image, lets every driver restore, and reports. It changes nothing in the file.
 *
 * Drivers of which anything is wrong are failures in the report, and so is memory that nobody claims. Damage that early
 * boot finds is thrown: then nothing was restored.
 */
export async function restoreImage(input: SuccessorInput): Promise<SuccessorReport> {
  // Modules are part of the kernel image: loading them is no part of the boot that is measured.
  const drivers = await Promise.all(input.drivers.map((module) => loadDriver(module)));
  const memory = ImageMemory.open(input.image);
  try {
    const recorder = new TimelineRecorder(process.hrtime.bigint());
    const arch = architectureNamed(input.arch);
    const boot = await recorder.phase('boot', () => bootEarly(memory, arch, CPUS));
    const failures: FailureRecord[] = [];
    const restored: RestoredInstance[] = [];
    const states: { driver: Driver; instance: string; state: unknown }[] = [];
    const revived: { name: string; address: number; size: number }[] = [];
    let metadata: KexecMetadata = { previousRelease: '', kexecCount: 0 };
    await recorder.phase('restore', async () => {
      const work: Restoration[] = [];
      for (const blob of boot.root.subtrees) {
        try {
          const bytes = memory.read(blob.address, blob.size);
          if (blob.name === KEXEC_METADATA_NAME) metadata = decodeKexecMetadata(bytes);
          else if (blob.name === MEMBLOCK_SUBTREE_NAME) revived.push(...revive(boot, bytes));
          else work.push(...instancesOf(blob, bytes, drivers));
        } catch (error) {
          failures.push(failure(error, { driver: blob.name, address: blob.address }));
        }
      }
      for (const { driver, node, blob } of work) {
        const { address, size } = blob;
        const context = new DriverRestoreContext(driver.name, { address, size }, node, memory, boot.preserved);
        const { instance } = context;
        const start = recorder.now();
        try {
          const state = await driver.restore(context);
          states.push({ driver, instance, state });
        } catch (error) {
          failures.push(failure(error, { driver: driver.name, instance, address }));
        } finally {
          context.close();
          const thread = recorder.thread({ role: 'successor', threadId: 0 });
          const span = { phase: 'restore', driver: driver.name, instance, thread } as const;
          recorder.add({ ...span, queued: start, start, end: recorder.now() });
        }
      }
    });
    await recorder.phase('finish', async () => {
      for (const { driver, instance, state } of states) {
        try {
          restored.push({ driver: driver.name, name: instance, digest: stateDigest(driver.snapshot(state)) });
          await driver.finish?.({ driver: driver.name, instance, state });
        } catch (error) {
          failures.push(failure(error, { driver: driver.name, instance }));
        }
      }
      // The blobs are read: the core gives their pages back.
      boot.preserved.settleRange(boot.record.root, ROOT_FDT_SIZE, 'discarded');
      for (const { address, size } of boot.root.subtrees) boot.preserved.settleRange(address, size, 'discarded');
    });
    return {
      bootRecord: { kind: boot.record.kind, address: boot.record.address, root: boot.record.root },
      previousRelease: metadata.previousRelease,
      kexecCount: metadata.kexecCount,
      preservedObjects: boot.preserved.count,
      preservedBytes: boot.preserved.bytes,
      restored,
      revived,
      unclaimed: boot.preserved.unclaimed(),
      failures,
      timeline: recorder.timeline,
    };
  } finally {
    memory.close();
  }
}

/** Takes over the named reservations that the next kernel's own command line asks for. */
function revive({ record, memblock, preserved }: EarlyBoot, blob: Uint8Array) {
  const { reserveMem } = parseCommandLine(record.commandLine, { mode: 'kernel', khoDefault: true });
  const { reserved, warnings } = reviveNamedMemory(memblock, reserveMem, readMemblockFdt(blob));
  if (warnings[0] !== undefined) throw new KhoError('KHO_EIMAGE', warnings.join('; '));
  for (const { address, size } of reserved) preserved.settleRange(address, size, 'claimed');
  return reserved.map(({ name, address, size }) => ({ name, address, size }));
}

/**
 * The instances of a driver's sub-blob with the driver that knows its format: a raw one by the name of the sub-blob, an
 * FDT by its compatible. KHO_ENOENT if none does.
 */
function instancesOf(blob: Subtree, bytes: Uint8Array, drivers: readonly Driver[]): Restoration[] {
  const raw = drivers.find((candidate) => candidate.blob === 'raw' && candidate.name === blob.name);
  if (raw !== undefined) return [{ driver: raw, blob }];
  const { root } = FdtReader.open(bytes);
  const compatible = root.property('compatible')?.string() ?? '';
  const driver = drivers.find((candidate) => candidate.blob !== 'raw' && candidate.compatible === compatible);
  if (driver === undefined) {
    throw new KhoError('KHO_ENOENT', `no driver here is compatible with '${compatible}' (subtree '${blob.name}')`);
  }
  return [...root.children()].map((node) => ({ driver, node, blob }));
}

function failure(thrown: unknown, concerning: { driver: string; instance?: string; address?: number }): FailureRecord {
  const error = KhoError.from(thrown);
  const address = error.details.address ?? concerning.address;
  return {
    code: error.code,
    message: error.message,
    driver: concerning.driver,
    ...(concerning.instance === undefined ? {} : { instance: concerning.instance }),
    ...(address === undefined ? {} : { address }),
  };
}
