import { encodeScratchArray } from '../../abi/index.js';
import { KhoError } from '../../errors.js';
import { PAGE_SIZE } from '../../memblock/index.js';
import type { Architecture, BootRecordInput, KexecSegment } from '../architecture.js';
import { SegmentPlacer } from '../segment-placer.js';
import { COMMAND_LINE_SIZE, encodeBootParams } from './boot-params.js';
import { e820Map } from './e820.js';
import { bootRecords, findBootRecord, readBootRecord } from './find-boot-record.js';
import { encodeKhoSetupData } from './setup-data.js';

/** kho_fill_kimage() aligns the scratch array's segment to this. */
const SCRATCH_ARRAY_ALIGNMENT = 64 * 1024;
/** boot_params, its setup_data and the command line are reached through 32-bit fields by early code. */
const LOW_LIMIT = 2 ** 32;

/** x86-64: boot_params → setup_data → kho_data, all in scratch. */
export const X86_64: Architecture = {
  name: 'x86_64',
  firmwareMap: e820Map,
  buildBootRecord,
  findBootRecord,
  bootRecords,
  readBootRecord,
};

function buildBootRecord({ firmware, commandLine, root, scratch }: BootRecordInput): KexecSegment[] {
  const text = new TextEncoder().encode(`${commandLine}\0`);
  if (text.length > COMMAND_LINE_SIZE) {
    throw new KhoError('KHO_EINVAL', `the command line is longer than ${COMMAND_LINE_SIZE - 1} bytes`, {
      field: 'host.cmdline',
    });
  }
  const placer = new SegmentPlacer(scratch);
  const array = encodeScratchArray(scratch);
  const scratchAddress = placer.place(array, { what: 'the scratch array', alignment: SCRATCH_ARRAY_ALIGNMENT });
  const setupData = placer.place(
    encodeKhoSetupData({ fdtAddress: root, fdtSize: PAGE_SIZE, scratchAddress, scratchSize: array.length }),
    { what: 'setup_data', alignment: PAGE_SIZE },
  );
  const low = { alignment: PAGE_SIZE, maximum: LOW_LIMIT };
  const commandLineAddress = placer.place(text, { what: 'the command line', ...low });
  placer.place(encodeBootParams({ firmware, commandLineAddress, setupData }), { what: 'boot_params', ...low });
  return [...placer.segments];
}
