import { encodeScratchArray } from '../../abi/index.js';
import { KhoError } from '../../errors.js';
import { after, alignUp, PAGE_SIZE, type PhysicalAddress } from '../../memblock/index.js';
import type { KexecFdt, KexecImage, KexecInput, KexecSegment } from '../architecture.js';
import { SegmentPlacer } from '../segment-placer.js';
import { BOOT_PARAMS_SIZE, COMMAND_LINE_SIZE, encodeBootParams } from './boot-params.js';
import { encodeBootRom, encodeIdentityMap, IDENTITY_MAP_SIZE } from './boot-rom.js';
import { type BzImage, ENTRY_64, parseBzImage } from './bz-image.js';
import { encodeKhoSetupData, KHO_DATA_SIZE, type KhoData, SETUP_DATA_HEADER_SIZE } from './setup-data.js';

/** kho_fill_kimage() aligns the scratch array's segment to this, and in the series v4 and v5 that of the FDT. */
const KHO_SEGMENT_ALIGNMENT = 64 * 1024;
/** The lowest addresses that bzImage64_load() of Linux 7.2 gives boot_params and an initrd. */
const MIN_BOOTPARAM_ADDR = 0x3000;
const MIN_INITRD_LOAD_ADDR = 0x1000000;
/** The boot ROM loads CR3 in real mode. */
const LOW_LIMIT = 2 ** 32;
const BOOT_PARAMS = 'boot_params';

/**
 * Loads as kexec_file_load() of Linux 7.2 does with KHO on, in its order: the FDT if it is a segment, the scratch array, then one segment of
 * boot_params, command line and setup_data, the kernel, the initrd. Each goes to the first scratch area that has room,
 * from its top down. In place of purgatory there are page tables for the boot ROM.
 *
 * ```text
 *   boot_params segment   0x0000  struct boot_params
 *                         0x1000  command line with its NUL, padded to 16 bytes
 *                              …  setup_data: type 10, struct kho_data
 * ```
 */
export function loadKexec({ firmware, commandLine, root, scratch, kernel, initrd }: KexecInput): KexecImage {
  const image = kernel === undefined ? undefined : parseBzImage(kernel.bytes, kernel.file);
  const text = encodeCommandLine(commandLine, image);
  const placer = new SegmentPlacer(scratch);
  const fdt = typeof root === 'number' ? undefined : placeFdt(placer, root.room);
  const array = encodeScratchArray(scratch);
  const scratchArray = placer.place(array, { what: 'the scratch array', alignment: KHO_SEGMENT_ALIGNMENT });

  const setupDataAt = BOOT_PARAMS_SIZE + alignUp(text.length, 16);
  const params = new Uint8Array(setupDataAt + SETUP_DATA_HEADER_SIZE + KHO_DATA_SIZE);
  const record = placer.place(params, { what: BOOT_PARAMS, alignment: 16, minimum: MIN_BOOTPARAM_ADDR });
  const loaded =
    image &&
    placer.place(image.kernel, {
      what: 'the kernel',
      alignment: image.alignment,
      memorySize: image.memorySize,
      minimum: image.minimumAddress,
    });
  const ramdisk =
    initrd === undefined || initrd.bytes.length === 0
      ? undefined
      : placer.place(initrd.bytes, { what: 'the initrd', alignment: PAGE_SIZE, minimum: MIN_INITRD_LOAD_ADDR });
  const start = image && loaded && startAt(placer, image, after(loaded.address, ENTRY_64), record.address);

  const setupData = after(record.address, setupDataAt);
  params.set(
    encodeBootParams({
      firmware,
      commandLineAddress: after(record.address, BOOT_PARAMS_SIZE),
      setupData,
      ...(image && { setupHeader: image.setupHeader }),
      ...(ramdisk && { ramdisk: { address: ramdisk.address, size: ramdisk.bytes.length } }),
    }),
  );
  params.set(text, BOOT_PARAMS_SIZE);
  const data: KhoData = {
    fdtAddress: typeof root === 'number' ? root : (fdt?.address ?? 0),
    fdtSize: fdt?.memorySize ?? PAGE_SIZE,
    scratchAddress: scratchArray.address,
    scratchSize: array.length,
  };
  const setFdtSize = (fdtSize: number): void => params.set(encodeKhoSetupData({ ...data, fdtSize }), setupDataAt);
  setFdtSize(data.fdtSize);
  const made: KexecFdt | undefined = fdt && { segment: fdt, setSize: setFdtSize };
  return {
    segments: [...placer.segments],
    record,
    scratchArray,
    ...(loaded && { kernel: loaded }),
    ...(made && { fdt: made }),
    ...(start && { start }),
  };
}

/** kexec_file_load() of the series v5 gives the FDT a segment of which nothing is loaded: it is made later. */
function placeFdt(placer: SegmentPlacer, room: number): KexecSegment {
  const rules = { what: "the FDT's room", alignment: KHO_SEGMENT_ALIGNMENT, memorySize: room };
  return placer.place(new Uint8Array(0), rules);
}

function encodeCommandLine(commandLine: string, image: BzImage | undefined): Uint8Array {
  const text = new TextEncoder().encode(`${commandLine}\0`);
  const limit = Math.min(COMMAND_LINE_SIZE, (image?.commandLineSize ?? COMMAND_LINE_SIZE) + 1);
  if (text.length > limit) {
    throw new KhoError('KHO_EINVAL', `the command line has ${text.length - 1} bytes, more than ${limit - 1}`, {
      field: 'host.cmdline',
      size: text.length - 1,
    });
  }
  return text;
}

function startAt(placer: SegmentPlacer, { version }: BzImage, entry: number, bootParams: PhysicalAddress) {
  const what = "the boot ROM's page tables";
  const rules = { what, alignment: PAGE_SIZE, maximum: LOW_LIMIT };
  // Made when their place is known: they point to one another.
  const tables = placer.place(new Uint8Array(IDENTITY_MAP_SIZE), rules);
  tables.bytes.set(encodeIdentityMap(tables.address));
  return { version, entry, rom: encodeBootRom({ entry, bootParams, identityMap: tables.address }) };
}
