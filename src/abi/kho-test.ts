import { KhoError } from '../errors.js';
import { FdtReader, FdtWriter } from '../fdt/index.js';
import {
  type Folio,
  hex,
  MAX_PAGE_ORDER,
  PAGE_SIZE,
  type PhysicalAddress,
  physicalAddress,
} from '../memblock/index.js';
import { csumPartial } from './csum-partial.js';
import {
  decodeKhoVmalloc,
  encodeKhoVmalloc,
  KHO_VMALLOC_SIZE,
  type KhoVmalloc,
  readKhoVmalloc,
  readVmallocBytes,
  type VmallocArea,
} from './kho-vmalloc.js';
import { type ReadableMemory, readUntrusted, Structure } from './structure.js';

/**
 * What the kernel's own test hands over, lib/test_kho.c of Linux 7.2: folios of all orders and their checksum.
 *
 * ```dts
 * / {
 *     compatible = "kho-test-v1";
 *     magic = <u32 0x4b484f21>;                // "!OHK" in memory
 *     data {
 *         nr_folios = <u32>;
 *         folios_info = [kho_vmalloc];         // ──▶ array of u64: physical address | order
 *         csum = <u32>;                        // csum_partial() of all folios in order
 *     };
 * };
 * ```
 *
 * Values are native. The array lies in a vmalloc area; each folio is preserved at its own order (kho_restore_folio()).
 * The next kernel neither restores nor frees the blob's own folio.
 */
export interface KhoTest {
  readonly folioCount: number;
  readonly foliosInfo: KhoVmalloc;
  readonly csum: number;
}

/** The name of the blob in the root FDT. */
export const KHO_TEST_SUBTREE_NAME = 'kho_test';
export const KHO_TEST_COMPATIBLE = 'kho-test-v1';
export const KHO_TEST_MAGIC = 0x4b484f21;
export const KHO_TEST_FOLIO_INFO_SIZE = 8;

/** Writes the FDT into `into` (a page is enough) and returns its size. */
export function writeKhoTestFdt(into: Uint8Array, { folioCount, foliosInfo, csum }: KhoTest): number {
  const writer = new FdtWriter({ into, strings: ['compatible', 'csum', 'folios_info', 'magic', 'nr_folios'] });
  writer.beginNode('');
  writer.string('compatible', KHO_TEST_COMPATIBLE);
  writer.u32('magic', KHO_TEST_MAGIC, 'little');
  writer.beginNode('data');
  writer.u32('nr_folios', folioCount, 'little');
  writer.property('folios_info', encodeKhoVmalloc(foliosInfo));
  writer.u32('csum', csum, 'little');
  writer.endNode();
  writer.endNode();
  return writer.finish().length;
}

/** Reads it back. KHO_FDT_* if the blob is no FDT, KHO_EIMAGE if it is another, or a property is missing or wrong. */
export function readKhoTestFdt(blob: Uint8Array): KhoTest {
  const { root } = FdtReader.open(blob);
  const compatible = root.property('compatible')?.string();
  if (compatible !== KHO_TEST_COMPATIBLE) {
    throw new KhoError(
      'KHO_EIMAGE',
      `the ${KHO_TEST_SUBTREE_NAME} blob is '${compatible}', expected '${KHO_TEST_COMPATIBLE}'`,
    );
  }
  const magic = root.property('magic')?.u32('little');
  if (magic !== KHO_TEST_MAGIC) {
    const found = magic === undefined ? 'missing' : hex(magic);
    throw new KhoError(
      'KHO_EIMAGE',
      `the magic of /${KHO_TEST_SUBTREE_NAME} is ${found}, expected ${hex(KHO_TEST_MAGIC)}`,
    );
  }
  const data = root.child('data');
  const folioCount = data?.property('nr_folios')?.u32('little');
  const foliosInfo = data?.property('folios_info')?.value;
  const csum = data?.property('csum')?.u32('little');
  if (folioCount === undefined || foliosInfo?.length !== KHO_VMALLOC_SIZE || csum === undefined) {
    throw new KhoError('KHO_EIMAGE', `the ${KHO_TEST_SUBTREE_NAME} blob has no whole /data`, { path: '/data' });
  }
  const descriptor = new Structure('folios_info of kho_test', physicalAddress(0), foliosInfo);
  return { folioCount, foliosInfo: decodeKhoVmalloc(descriptor), csum };
}

/** The array of folios. */
export function encodeKhoTestFolios(folios: readonly Folio[]): Uint8Array {
  const bytes = new Uint8Array(folios.length * KHO_TEST_FOLIO_INFO_SIZE);
  const view = new DataView(bytes.buffer);
  for (const [index, { address, order }] of folios.entries()) {
    view.setBigUint64(index * KHO_TEST_FOLIO_INFO_SIZE, BigInt(address) + BigInt(order), true);
  }
  return bytes;
}

/** The test's data as it is found in memory. */
export interface KhoTestData {
  readonly folios: readonly Folio[];
  readonly csum: number;
  /** The pages that the array takes. */
  readonly area: VmallocArea;
}

/**
 * Reads the blob and the array. KHO_EIMAGE also for a damaged array and for a folio of an order above 10, not aligned to
 * its order, or there twice. The checksum is not compared: that takes reading the folios ({@link khoTestCsum}).
 */
export function readKhoTest(memory: ReadableMemory, address: PhysicalAddress, size: number): KhoTestData {
  const what = 'the folio list of kho_test';
  const { folioCount, foliosInfo, csum } = readKhoTestFdt(
    readUntrusted(memory, address, size, `the ${KHO_TEST_SUBTREE_NAME} blob`),
  );
  const area = readKhoVmalloc(memory, foliosInfo, what);
  const list = readVmallocBytes(memory, area, folioCount * KHO_TEST_FOLIO_INFO_SIZE, what);
  const view = new DataView(list.buffer);
  const met = new Set<number>();
  const folios = Array.from({ length: folioCount }, (_, index): Folio => {
    const word = view.getBigUint64(index * KHO_TEST_FOLIO_INFO_SIZE, true);
    const order = Number(word % BigInt(PAGE_SIZE));
    const at = word - BigInt(order);
    const bad = (text: string) => new KhoError('KHO_EIMAGE', `folio ${index} of kho_test, ${hex(word)}: ${text}`);
    if (order > MAX_PAGE_ORDER) throw bad(`order is ${order}, above the limit of ${MAX_PAGE_ORDER}`);
    if (at === 0n || at >= 2n ** 52n || at % BigInt(PAGE_SIZE * 2 ** order) !== 0n) {
      throw bad(`${hex(at)} is not the address of a folio of order ${order}`);
    }
    const folio = { address: physicalAddress(Number(at)), order };
    if (met.has(folio.address)) throw bad('it is a folio already');
    met.add(folio.address);
    return folio;
  });
  return { folios, csum, area };
}

/** The checksum of folios as they are in memory. KHO_EIMAGE for one that is not memory. */
export function khoTestCsum(memory: ReadableMemory, folios: readonly Folio[]): number {
  let csum = 0;
  for (const { address, order } of folios) {
    csum = csumPartial(readUntrusted(memory, address, PAGE_SIZE * 2 ** order, 'a folio of kho_test'), csum);
  }
  return csum;
}
