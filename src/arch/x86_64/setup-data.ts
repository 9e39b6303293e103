/**
 * The boot record of x86-64: a setup_data node of type 10 with a struct kho_data (arch/x86/include/uapi/asm/
 * setup_data.h, Linux 6.16 and later). All fields are little-endian.
 *
 * ```text
 *   struct setup_data          struct kho_data
 *    0  u64 next                 0  u64 fdt_addr
 *    8  u32 type = 10            8  u64 fdt_size
 *   12  u32 len  = 32           16  u64 scratch_addr
 *   16  data                    24  u64 scratch_size
 * ```
 */
export const SETUP_KEXEC_KHO = 10;
export const SETUP_DATA_HEADER_SIZE = 16;
export const KHO_DATA_SIZE = 32;

export interface KhoData {
  readonly fdtAddress: number;
  readonly fdtSize: number;
  readonly scratchAddress: number;
  readonly scratchSize: number;
}

/** A setup_data node that holds `data` and ends the list. */
export function encodeKhoSetupData(data: KhoData): Uint8Array {
  const bytes = new Uint8Array(SETUP_DATA_HEADER_SIZE + KHO_DATA_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(8, SETUP_KEXEC_KHO, true);
  view.setUint32(12, KHO_DATA_SIZE, true);
  const fields = [data.fdtAddress, data.fdtSize, data.scratchAddress, data.scratchSize];
  for (const [index, field] of fields.entries()) {
    view.setBigUint64(SETUP_DATA_HEADER_SIZE + index * 8, BigInt(field), true);
  }
  return bytes;
}

/** The fields of a struct kho_data, or undefined if one of them is above 2^53-1 and so no address. */
export function decodeKhoData(bytes: Uint8Array): KhoData | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const field = (index: number): number => Number(view.getBigUint64(index * 8, true));
  const data = { fdtAddress: field(0), fdtSize: field(1), scratchAddress: field(2), scratchSize: field(3) };
  return Object.values(data).every(Number.isSafeInteger) ? data : undefined;
}
