/**
 * The registers of an x86-64 virtual CPU, as KVM's ioctls KVM_GET_REGS, _SREGS, _MSRS, _XSAVE and _LAPIC give them.
 */
import type { Random } from '../driver.js';

/** In the order of their encoding in instructions. */
export const GENERAL_REGISTERS = [
  ...['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'],
  ...['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'],
] as const;

/** Segment registers, then the task register and the local descriptor table. */
export const SEGMENTS = ['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'tr', 'ldt'] as const;
export const CONTROL_REGISTERS = ['cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'xcr0'] as const;

/** Model-specific registers by their numbers. */
export const MSRS = {
  tsc: 0x10,
  'apic-base': 0x1b,
  'spec-ctrl': 0x48,
  'sysenter-cs': 0x174,
  'sysenter-esp': 0x175,
  'sysenter-eip': 0x176,
  'misc-enable': 0x1a0,
  pat: 0x277,
  'tsc-deadline': 0x6e0,
  efer: 0xc0000080,
  star: 0xc0000081,
  lstar: 0xc0000082,
  cstar: 0xc0000083,
  'syscall-mask': 0xc0000084,
  'fs-base': 0xc0000100,
  'gs-base': 0xc0000101,
  'kernel-gs-base': 0xc0000102,
  'tsc-aux': 0xc0000103,
} as const;
export type MsrName = keyof typeof MSRS;
/** In the order of {@link Registers.msrs}. */
export const MSR_NAMES = Object.keys(MSRS) as MsrName[];

/** The standard format of XSAVE: legacy area of 512 bytes, header of 64, AVX state of 256. */
export const XSAVE_SIZE = 512 + 64 + 256;
const XSAVE_HEADER = 512;
const XSAVE_X87_SSE_AVX = 0x7;

export const LAPIC_PAGE_SIZE = 4096;
const LAPIC_ID = 0x20;
const LAPIC_VERSION = 0x30;
const LAPIC_SPURIOUS_VECTOR = 0xf0;
const LAPIC_TIMER = 0x320;
const LAPIC_INITIAL_COUNT = 0x380;
const LAPIC_CURRENT_COUNT = 0x390;
const LAPIC_TIMER_PERIODIC = 0x20000;

export interface Segment {
  readonly selector: number;
  readonly base: bigint;
  readonly limit: number;
  /** Type, S, DPL, P, AVL, L, D/B and G as in bits 40 to 55 of a descriptor. */
  readonly attributes: number;
}

/** What a vCPU is. Arrays are in the order of the lists of names above. */
export interface Registers {
  readonly general: BigUint64Array;
  rip: bigint;
  readonly rflags: bigint;
  readonly segments: readonly Segment[];
  readonly control: readonly bigint[];
  readonly msrs: BigUint64Array;
  readonly xsave: Uint8Array;
  /** The page of the local APIC. */
  readonly lapic: Uint8Array;
}

/** A vCPU in 64-bit mode, somewhere in its guest's kernel. */
export function makeRegisters(random: Random, index: number): Registers {
  const kernelAddress = () => 0xffffffff_80000000n + BigInt(random.below(2 ** 30));
  const msrs: Record<MsrName, bigint> = {
    tsc: random.u64() >> 16n,
    'apic-base': 0xfee00800n | (index === 0 ? 0x100n : 0n), // enabled; the first one booted the guest
    'spec-ctrl': 1n,
    'sysenter-cs': 0x10n,
    'sysenter-esp': kernelAddress(),
    'sysenter-eip': kernelAddress(),
    'misc-enable': 1n,
    pat: 0x0407050600070106n,
    'tsc-deadline': random.u64() >> 16n,
    efer: 0xd01n, // SCE, LME, LMA, NXE
    star: 0x0023_0010_0000_0000n,
    lstar: kernelAddress(),
    cstar: kernelAddress(),
    'syscall-mask': 0x257fd5n,
    'fs-base': random.u64() >> 17n,
    'gs-base': 0xffff8880_00000000n + BigInt(random.u32()),
    'kernel-gs-base': random.u64() >> 17n,
    'tsc-aux': BigInt(index),
  };
  return {
    general: BigUint64Array.from(GENERAL_REGISTERS, () => random.u64()),
    rip: kernelAddress(),
    rflags: 0x246n, // IF, ZF, PF
    segments: SEGMENTS.map((name) => makeSegment(random, name)),
    control: [0x80050033n, random.u64() >> 17n, BigInt(random.u32()) << 12n, 0x3606f0n, 0n, 7n],
    msrs: BigUint64Array.from(MSR_NAMES, (name) => msrs[name]),
    xsave: makeXsave(random),
    lapic: makeLapic(random, index),
  };
}

/** Moves the guest's clock: the TSC by cycles, the local APIC's timer by its share of them. */
export function advanceTime(registers: Registers, cycles: number): void {
  const tsc = MSR_NAMES.indexOf('tsc');
  registers.msrs[tsc] += BigInt(cycles);
  const lapic = new DataView(registers.lapic.buffer, registers.lapic.byteOffset);
  const initial = lapic.getUint32(LAPIC_INITIAL_COUNT, true);
  const current = lapic.getUint32(LAPIC_CURRENT_COUNT, true);
  // Periodic: it counts down, and begins again.
  lapic.setUint32(LAPIC_CURRENT_COUNT, (current + initial - (cycles % initial)) % initial, true);
}

function makeSegment(random: Random, name: (typeof SEGMENTS)[number]): Segment {
  switch (name) {
    case 'cs':
      return { selector: 0x10, base: 0n, limit: 0xffffffff, attributes: 0xa09b };
    case 'tr':
      return { selector: 0x40, base: 0xfffffe00_00003000n + BigInt(random.u32()), limit: 0x206f, attributes: 0x8b };
    case 'ldt':
      return { selector: 0, base: 0n, limit: 0, attributes: 0x82 };
    default:
      return { selector: name === 'ss' ? 0x18 : 0, base: 0n, limit: 0xffffffff, attributes: 0xc093 };
  }
}

function makeXsave(random: Random): Uint8Array {
  const area = random.bytes(XSAVE_SIZE);
  area.fill(0, XSAVE_HEADER, XSAVE_HEADER + 64);
  area[XSAVE_HEADER] = XSAVE_X87_SSE_AVX; // XSTATE_BV: what of the area is valid
  return area;
}

function makeLapic(random: Random, index: number): Uint8Array {
  const page = new Uint8Array(LAPIC_PAGE_SIZE);
  const view = new DataView(page.buffer);
  const initialCount = 10_000 + random.below(1_000_000);
  view.setUint32(LAPIC_ID, (index & 0xff) << 24, true);
  view.setUint32(LAPIC_VERSION, 0x50014, true);
  view.setUint32(LAPIC_SPURIOUS_VECTOR, 0x1ff, true);
  view.setUint32(LAPIC_TIMER, LAPIC_TIMER_PERIODIC | 0xec, true);
  view.setUint32(LAPIC_INITIAL_COUNT, initialCount, true);
  view.setUint32(LAPIC_CURRENT_COUNT, random.below(initialCount), true);
  return page;
}
