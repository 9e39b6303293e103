import {
  decodeKexecMetadata,
  KEXEC_METADATA_NAME,
  KHO_TEST_SUBTREE_NAME,
  KHO_V4,
  MEMBLOCK_SUBTREE_NAME,
  ROOT_FDT_SIZE,
  readKhoRoot,
  readMemblockFdt,
} from '../abi/index.js';
import type { BootRecord } from '../arch/index.js';
import type { RunRecord } from '../coordinator/index.js';
import { KhoError } from '../errors.js';
import { type PhysicalMemory, parseCommandLine } from '../memblock/index.js';
import type { ConsoleExpectations } from './console-verdict.js';

/**
 * What the console of a kernel must tell that boots from `memory` with this command line: read from the handover itself,
 * and from run.json what the run recorded of contents. A handover that cannot be read expects nothing, and `notes` say why:
 * the kernel is the judge of it.
 */
export function expectationsOf(
  memory: PhysicalMemory,
  boot: Pick<BootRecord, 'root'>,
  commandLine: string,
  record: RunRecord | undefined,
): { expected: ConsoleExpectations; notes: string[] } {
  const notes: string[] = [];
  const { reserveMem } = parseCommandLine(commandLine, { mode: 'kernel', khoDefault: true });
  const wanted = new Set(reserveMem.map(({ name }) => name));
  const expected = {
    reservations: [] as string[],
    khoTest: false,
    digests: new Map<string, string>(),
  };
  let metadata: ConsoleExpectations['metadata'];
  try {
    for (const { name, address, size } of readKhoRoot(memory.read(boot.root, ROOT_FDT_SIZE), [KHO_V4], memory)
      .subtrees) {
      if (name === KEXEC_METADATA_NAME) metadata = decodeKexecMetadata(memory.read(address, size));
      if (name === KHO_TEST_SUBTREE_NAME) expected.khoTest = true;
      if (name !== MEMBLOCK_SUBTREE_NAME) continue;
      const there = readMemblockFdt(memory.read(address, size)).map((reservation) => reservation.name);
      expected.reservations.push(...there.filter((reservation) => wanted.has(reservation)));
      for (const reservation of there.filter((one) => !wanted.has(one))) {
        notes.push(
          `the area '${reservation}' is handed over, but the command line has no reserve_mem= that asks for it`,
        );
      }
    }
  } catch (error) {
    notes.push(
      `the handover cannot be read, so not all that the kernel should say is known: ${KhoError.from(error).message}`,
    );
  }
  if (record === undefined) {
    notes.push('run.json is not there: contents that the guest finds are not compared');
  } else {
    for (const { name, sha256 } of record.host.reserveMem) {
      if (expected.reservations.includes(name)) expected.digests.set(`reserve_mem ${name}`, sha256);
    }
    for (const { digests = {} } of record.instances) {
      for (const [name, digest] of Object.entries(digests)) expected.digests.set(name, digest);
    }
  }
  return { expected: { ...expected, ...(metadata && { metadata }) }, notes };
}
