import { checkLoadable, decodeScratchArray, readHandoverRoot, walkPreservedMemory } from '../abi/index.js';
import type { Architecture, BootRecord, KexecImage } from '../arch/index.js';
import {
  KEXEC_LOAD_STEPS,
  type KexecPlan,
  readKexecFiles,
  type Timeline,
  TimelineRecorder,
} from '../coordinator/index.js';
import { KhoError } from '../errors.js';
import { type ImageMemory, PAGE_SIZE, type PhysicalAddress } from '../memblock/index.js';
import { machineCommandLine } from './command-line.js';

/** A memory image with a kernel loaded into its scratch areas. */
export interface LoadedImage {
  readonly record: BootRecord;
  readonly kexec: KexecImage;
  readonly commandLine: string;
  /** What of the image has a meaning: preserved memory, the tracker, the new segments. */
  readonly ranges: readonly { readonly base: PhysicalAddress; readonly size: number }[];
  /** Steps of loading, all in phase `prepare`. */
  readonly timeline: Timeline;
}

/**
 * Loads a kernel for the handover that `memory` holds, in place of whatever was loaded before. The segments are written
 * into the overlay of `memory`; the file is not touched. A plan without a command line gets the
 * image's own, with what the machine needs.
 *
 * KHO_EIMAGE, KHO_ETRACKER or an FDT error for an image without a usable handover; KHO_EOPNOTSUPP for a handover of a
 * profile that the kernels do not speak; the errors of reading files and of {@link Architecture.loadKexec}.
 */
export async function loadIntoImage(memory: ImageMemory, arch: Architecture, plan: KexecPlan): Promise<LoadedImage> {
  const recorder = new TimelineRecorder(process.hrtime.bigint());
  const [readStep, loadStep] = KEXEC_LOAD_STEPS;
  return recorder.phase('prepare', async () => {
    const found = recorder.step('prepare', 'find the handover', () => findHandover(memory, arch));
    const files = await recorder.stepAsync('prepare', readStep, () => readKexecFiles(plan));
    const { record, ranges } = found;
    const commandLine = plan.commandLine ?? machineCommandLine(record.commandLine);
    const kexec = recorder.step('prepare', loadStep, () => {
      const scratch = decodeScratchArray(memory.read(record.scratchArray, record.scratchArraySize));
      const image = arch.loadKexec({ firmware: record.firmware, commandLine, root: record.root, scratch, ...files });
      for (const { address, bytes } of image.segments) memory.write(address, bytes);
      return image;
    });
    const segments = kexec.segments.map(({ address, bytes }) => ({ base: address, size: bytes.length }));
    return { record, kexec, commandLine, ranges: [...ranges, ...segments], timeline: recorder.timeline };
  });
}

/** The boot record, and everything that a next kernel must find untouched. */
function findHandover(memory: ImageMemory, arch: Architecture) {
  const record = arch.findBootRecord(memory);
  const handover = readHandoverRoot(memory, record.root, record.rootSize);
  checkLoadable(handover.profile);
  // The one FDT is in no profile that can be loaded: this tells the compiler.
  if (handover.form === 'one-fdt') throw new KhoError('KHO_EOPNOTSUPP', 'no kernel reads the one FDT');
  const { root } = handover;
  const ranges: { base: PhysicalAddress; size: number }[] = [];
  try {
    const tables = walkPreservedMemory(memory, root, (address, order, count) => {
      ranges.push({ base: address, size: count * 2 ** order * PAGE_SIZE });
    });
    for (const base of tables) ranges.push({ base, size: PAGE_SIZE });
  } catch (error) {
    const { code, message, details } = KhoError.from(error, 'KHO_ETRACKER');
    throw new KhoError(code, `the tracker is damaged: ${message}`, details, { cause: error });
  }
  return { record, ranges };
}
