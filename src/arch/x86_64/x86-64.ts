import type { Architecture } from '../architecture.js';
import { e820Map } from './e820.js';
import { bootRecords, findBootRecord, readBootRecord, searchBootRecords } from './find-boot-record.js';
import { loadKexec } from './load-kexec.js';

/** x86-64: boot_params → setup_data → kho_data, all in scratch. */
export const X86_64: Architecture = {
  name: 'x86_64',
  firmwareMap: e820Map,
  loadKexec,
  findBootRecord,
  bootRecords,
  searchBootRecords,
  readBootRecord,
};
