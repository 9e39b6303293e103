import { type ProfileName, profileNamed, ROOT_FDT_SIZE, type SubFdtLink } from '../abi/index.js';
import { architectureNamed } from '../arch/index.js';
import {
  type FailureRecord,
  type LateWriteRecord,
  type LateWriteSource,
  lateWriteFailure,
  type RestoredInstance,
  type SuccessorReport,
  TimelineRecorder,
} from '../coordinator/index.js';
import { FrozenFile, ImageMemory } from '../memblock/index.js';
import { type Driver, type DriverModule, loadDriver, stateDigest } from '../workers/index.js';
import { bootEarly, type EarlyBoot } from './early-boot.js';
import { failureRecord } from './failure.js';
import { findRestorations } from './restorations.js';
import { DriverRestoreContext } from './restore-context.js';

/** All that a successor is told. Everything else it must find in the image. */
export interface SuccessorInput {
  /** The memory image: a file, offset = physical address. */
  readonly image: string;
  /** The kind of boot record to look for. */
  readonly arch: string;
  readonly drivers: readonly DriverModule[];
  /** Memory of which the image has no bytes (Handover.unbackedMemory): reading it is KHO_EFAULT. */
  readonly unbacked?: readonly { readonly base: number; readonly size: number }[];
  /** Tell in the report what was preserved, run by run: there may be many. */
  readonly listPreserved?: boolean;
  /** The one profile that this kernel speaks; absent for one that speaks all, and tells them apart by what it finds. */
  readonly profile?: ProfileName;
  /**
   * What Handover.writeFrozenDigests() wrote, to be compared with the image before drivers restore. `report`: what differs is
   * told, and no failure.
   */
  readonly frozen?: { readonly file: string; readonly policy: 'cancel' | 'report' };
}

/** A driver's code that the successor is about to run; `instance` is missing while its module is loaded. */
export interface SuccessorStep {
  readonly call: 'load' | 'restore' | 'finish';
  readonly driver: string;
  readonly instance?: string;
}

/** CPUs that the model of boot-time allocations assumes. */
const CPUS = 2;

/**
 * The next kernel: boots from the image, lets every driver restore, and reports. It changes nothing in the file.
 *
 * Drivers of which anything is wrong are failures in the report, and so is memory that nobody claims. Damage that early
 * boot finds is thrown: then nothing was restored. `onStep` is told before each piece of a driver's code: who hangs or ends the
 * process is the last one.
 */
export async function restoreImage(
  input: SuccessorInput,
  onStep: (step: SuccessorStep) => void = () => {},
): Promise<SuccessorReport> {
  // Modules are part of the kernel image: loading them is no part of the boot that is measured.
  const drivers: Driver[] = [];
  for (const module of input.drivers) {
    onStep({ call: 'load', driver: module.origin });
    drivers.push(await loadDriver(module));
  }
  const digests = input.frozen && (await FrozenFile.read<LateWriteSource>(input.frozen.file));
  const memory = ImageMemory.open(input.image);
  try {
    memory.setUnbacked(input.unbacked ?? []);
    const recorder = new TimelineRecorder(process.hrtime.bigint());
    const arch = architectureNamed(input.arch);
    const as = input.profile === undefined ? undefined : profileNamed(input.profile);
    const boot = await recorder.phase('boot', () => bootEarly(memory, arch, CPUS, as));
    const failures: FailureRecord[] = [];
    const restored: RestoredInstance[] = [];
    const lateWrites: LateWriteRecord[] = [];
    const states: { driver: Driver; instance: string; state: unknown }[] = [];
    const { revived, metadata, linked } = await recorder.phase('restore', async () => {
      if (digests !== undefined) lateWrites.push(...findLateWrites(digests, memory, recorder));
      if (input.frozen?.policy === 'cancel') failures.push(...lateWrites.map(lateWriteFailure));
      const found = findRestorations(boot, memory, drivers);
      failures.push(...found.failures);
      for (const { driver, node, blob } of found.work) {
        const { address, size } = blob;
        const context = new DriverRestoreContext(driver.name, { address, size }, node, memory, boot.preserved);
        const { instance } = context;
        onStep({ call: 'restore', driver: driver.name, instance });
        const start = recorder.now();
        try {
          const state = await driver.restore(context);
          states.push({ driver, instance, state });
        } catch (error) {
          failures.push(failureRecord(error, { driver: driver.name, instance, address }));
        } finally {
          context.close();
          const thread = recorder.thread({ role: 'successor', threadId: 0 });
          const span = { phase: 'restore', driver: driver.name, instance, thread } as const;
          recorder.add({ ...span, queued: start, start, end: recorder.now() });
        }
      }
      return found;
    });
    await recorder.phase('finish', async () => {
      for (const { driver, instance, state } of states) {
        onStep({ call: 'finish', driver: driver.name, instance });
        try {
          restored.push({ driver: driver.name, name: instance, digest: stateDigest(driver.snapshot(state)) });
          await driver.finish?.({ driver: driver.name, instance, state });
        } catch (error) {
          failures.push(failureRecord(error, { driver: driver.name, instance }));
        }
      }
      discardBlobs(boot, linked);
    });
    return {
      profile: boot.handover.profile.name,
      bootRecord: { kind: boot.record.kind, address: boot.record.address, root: boot.record.root },
      previousRelease: metadata?.previousRelease ?? '',
      kexecCount: metadata?.kexecCount ?? 0,
      preservedObjects: boot.preserved.count,
      preservedBytes: boot.preserved.bytes,
      ...(input.listPreserved && { preserved: [...boot.preserved.runs()] }),
      restored,
      revived,
      unclaimed: [...boot.preserved.unclaimed()],
      discarded: [...boot.preserved.discarded()],
      failures,
      ...(lateWrites.length > 0 && { lateWrites }),
      timeline: recorder.timeline,
    };
  } finally {
    memory.close();
  }
}

/** What was written between the jump and this kernel. Who wants to know pays for it in the blackout. */
function findLateWrites(
  digests: FrozenFile<LateWriteSource>,
  memory: ImageMemory,
  recorder: TimelineRecorder,
): LateWriteRecord[] {
  const found: LateWriteRecord[] = [];
  const thread = recorder.thread({ role: 'successor', threadId: 0 });
  const start = recorder.now();
  digests.compare(memory, (owner, address, offset) => {
    found.push({ found: 'successor', ...owner, address, offset });
  });
  recorder.add({ phase: 'restore', step: 'look for late writes', thread, queued: start, start, end: recorder.now() });
  return found;
}

/** The blobs are read: the core gives their pages back. The one FDT was never preserved. */
function discardBlobs({ preserved, record, handover }: EarlyBoot, linked: readonly SubFdtLink[]): void {
  if (handover.form === 'one-fdt') return;
  preserved.settleRange(record.root, ROOT_FDT_SIZE, 'discarded');
  for (const { address, size } of [...handover.root.subtrees, ...linked])
    preserved.settleRange(address, size, 'discarded');
}
