import { ONE_FDT_ROOM } from '../abi/index.js';
import type { KexecImage } from '../arch/index.js';
import type { Host } from './host.js';
import { readKexecFiles } from './kexec-files.js';
import type { RunPlan } from './plan.js';
import type { Reservations } from './reservations.js';
import { KEXEC_LOAD_STEPS, type TimelineRecorder } from './timeline.js';

/**
 * kexec_file_load(): kernel, initrd and boot record go into scratch, which nothing else uses. All but the record itself is
 * written now; that one is what the jump is: until then no successor finds anything. In prepare, whatever triggers the
 * blackout later.
 */
export async function kexecFileLoad(
  host: Host,
  { kexec, fdtMax = ONE_FDT_ROOM }: Pick<RunPlan, 'kexec' | 'fdtMax'>,
  { rooms }: Reservations,
  recorder: TimelineRecorder,
): Promise<KexecImage> {
  const { arch, firmware, memory, options, scratch } = host;
  const [read, load] = KEXEC_LOAD_STEPS;
  const files = kexec && (await recorder.stepAsync('prepare', read, () => readKexecFiles(kexec)));
  return recorder.step('prepare', files ? load : 'load the boot record', () => {
    const image = arch.loadKexec({
      firmware,
      commandLine: kexec?.commandLine ?? options.cmdline,
      root: rooms?.root ?? { room: fdtMax },
      scratch: scratch.areas,
      ...files,
    });
    for (const segment of image.segments) {
      if (segment !== image.record) memory.write(segment.address, segment.bytes);
    }
    // Cleared, and by that touched: what is made there is made in the blackout.
    for (const { address, memorySize } of [image.record, ...(image.fdt ? [image.fdt.segment] : [])]) {
      memory.fill(address, memorySize, 0);
    }
    return image;
  });
}
