/** Accesses to physical memory at ascending addresses. */
import { after, PAGE_SIZE, type PhysicalAddress, physicalAddress, SharedPhysicalMemory } from '#dist/memblock/index.js';
import type { Measured } from '../harness/comparison.js';

export interface PhysicalMemoryParameters {
  readonly call: keyof typeof STRIDES;
  /** Bytes that are gone through. */
  readonly size: number;
}

/** From one access to the next. */
const STRIDES = {
  readU32: 4,
  writeU32: 4,
  readU64Number: 8,
  writeU64: 8,
  read: PAGE_SIZE,
  write: PAGE_SIZE,
  fill: PAGE_SIZE,
} as const;

export default function physicalMemory({ call, size }: PhysicalMemoryParameters): Measured {
  const base = physicalAddress(0);
  const memory = SharedPhysicalMemory.create([{ base, size, nid: 0, backed: true }]);
  memory.fill(base, size, 0); // touches it
  const page = new Uint8Array(PAGE_SIZE);
  let sum = 0; // what is read must be needed
  const calls: Record<keyof typeof STRIDES, (address: PhysicalAddress) => void> = {
    readU32(address) {
      sum += memory.readU32(address);
    },
    writeU32: (address) => memory.writeU32(address, 0),
    readU64Number(address) {
      sum += memory.readU64Number(address);
    },
    writeU64: (address) => memory.writeU64(address, 0),
    read(address) {
      sum += memory.read(address, PAGE_SIZE).length;
    },
    write: (address) => memory.write(address, page),
    fill: (address) => memory.fill(address, PAGE_SIZE, 0),
  };
  const access = calls[call];
  const stride = STRIDES[call];
  return {
    measure() {
      const start = process.hrtime.bigint();
      for (let offset = 0; offset < size; offset += stride) access(after(base, offset));
      const time = Number(process.hrtime.bigint() - start);
      if (Number.isNaN(sum)) throw new Error('what was read is lost');
      return time / (size / stride);
    },
  };
}
