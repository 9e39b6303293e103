/**
 * kvm-vcpu: a virtual CPU, which runs until the very moment of the blackout. The driver is hosted: its state lives on
 * one thread from `create` on and changes there in the background.
 *
 * ```dts
 * kvm-vcpu0 {
 *     executed = <u64>;                      // instructions
 *     quantum = <u32>;
 *     rax = <u64>; rcx; ... r15; rip; rflags;
 *     cs { selector = <u32>; base = <u64>; limit = <u32>; attributes = <u32>; };
 *     ds { ... }; ... ldt { ... };
 *     cr0 = <u64>; cr2; cr3; cr4; cr8; xcr0;
 *     msrs { tsc = <u64>; efer = <u64>; ... };
 *     xsave = [...];                         // 832 bytes: x87, SSE and AVX state
 *     lapic-page = <u64>;                    // physical address
 * };
 * ```
 *
 * Preserved memory: the page of the local APIC, allocated by `prepare` while the guest runs, written by `freeze`.
 *
 * What is handed over must not depend on time, although the state does until it is frozen: see {@link RunningVcpu}.
 * In the successor a vCPU comes back stopped; to let it run is the VMM's business.
 */
import * as z from 'zod';
import { defineDriver, type FdtNode, type PhysicalAddress, physicalAddress } from '../driver.js';
import { fdtBytes } from './fdt-bound.js';
import { requiredProperty } from './required-property.js';
import { RunningVcpu } from './running-vcpu.js';
import {
  CONTROL_REGISTERS,
  GENERAL_REGISTERS,
  LAPIC_PAGE_SIZE,
  MSR_NAMES,
  makeRegisters,
  SEGMENTS,
  type Segment,
  XSAVE_SIZE,
} from './vcpu-registers.js';

const options = z.strictObject({
  quantum: z
    .int()
    .min(1)
    .max(1_000_000)
    .default(2000)
    .describe('Instructions from one exit to the next, at least; at most twice as many'),
});
type Options = z.infer<typeof options>;

interface Prepared {
  readonly lapicPage: PhysicalAddress;
}

export default defineDriver<Options, RunningVcpu, Prepared>({
  name: 'kvm-vcpu',
  compatible: 'kvm-vcpu-v1',
  hosted: true,
  options,

  shards: () => [{ pages: 1, maxBytes: MAX_BYTES }],

  create(ctx) {
    const random = ctx.random();
    const quantum = ctx.options.quantum + random.below(ctx.options.quantum);
    const vcpu = new RunningVcpu(makeRegisters(random, ctx.index), quantum);
    vcpu.start();
    return vcpu;
  },

  prepare(ctx) {
    const page = ctx.alloc(1);
    ctx.preserve(page);
    ctx.root.u64('lapic-page', page.address);
    return { lapicPage: page.address };
  },

  freeze({ state, prepared, memory }) {
    state.stop();
    memory.write(prepared.lapicPage, state.registers.lapic);
  },

  serialize(ctx) {
    const { root, state } = ctx;
    const { general, rip, rflags, segments, control, msrs, xsave } = state.registers;
    root.u64('executed', state.executed).u32('quantum', state.quantum);
    for (const [index, name] of GENERAL_REGISTERS.entries()) root.u64(name, general[index]);
    root.u64('rip', rip).u64('rflags', rflags);
    for (const [index, name] of SEGMENTS.entries()) {
      const { selector, base, limit, attributes } = segments[index];
      const node = root.node(name).u32('selector', selector).u64('base', base);
      node.u32('limit', limit).u32('attributes', attributes);
    }
    for (const [index, name] of CONTROL_REGISTERS.entries()) root.u64(name, control[index]);
    const node = root.node('msrs');
    for (const [index, name] of MSR_NAMES.entries()) node.u64(name, msrs[index]);
    root.bytes('xsave', xsave);
  },

  cancel(ctx) {
    if (ctx.prepared !== undefined) {
      const page = { address: ctx.prepared.lapicPage, pages: 1 };
      ctx.unpreserve(page);
      ctx.free(page);
    }
    ctx.state.start();
  },

  restore(ctx) {
    const { node } = ctx;
    const u64 = (name: string) => requiredProperty(node, name).u64('little');
    const lapicPage = physicalAddress(requiredProperty(node, 'lapic-page').number64('little'));
    ctx.claim({ address: lapicPage, pages: 1 });
    const msrs = node.get('msrs');
    return new RunningVcpu(
      {
        general: BigUint64Array.from(GENERAL_REGISTERS, u64),
        rip: u64('rip'),
        rflags: u64('rflags'),
        segments: SEGMENTS.map((name) => readSegment(node.get(name))),
        control: CONTROL_REGISTERS.map(u64),
        msrs: BigUint64Array.from(MSR_NAMES, (name) => requiredProperty(msrs, name).u64('little')),
        xsave: requiredProperty(node, 'xsave').value.slice(),
        lapic: ctx.memory.read(lapicPage, LAPIC_PAGE_SIZE),
      },
      requiredProperty(node, 'quantum').u32('little'),
      requiredProperty(node, 'executed').number64('little'),
    );
  },

  snapshot: ({ registers, executed, quantum }) => ({ ...registers, executed, quantum }),
});

const MAX_BYTES = fdtBytes([
  {
    name: '',
    properties: {
      ...eachOf8Bytes(['executed', ...GENERAL_REGISTERS, 'rip', 'rflags', ...CONTROL_REGISTERS, 'lapic-page']),
      quantum: 4,
      xsave: XSAVE_SIZE,
    },
  },
  { name: 'ldt', count: SEGMENTS.length, properties: { selector: 4, base: 8, limit: 4, attributes: 4 } },
  { name: 'msrs', properties: eachOf8Bytes(MSR_NAMES) },
]);

function eachOf8Bytes(names: readonly string[]): Record<string, number> {
  return Object.fromEntries(names.map((name) => [name, 8]));
}

function readSegment(node: FdtNode): Segment {
  return {
    selector: requiredProperty(node, 'selector').u32('little'),
    base: requiredProperty(node, 'base').u64('little'),
    limit: requiredProperty(node, 'limit').u32('little'),
    attributes: requiredProperty(node, 'attributes').u32('little'),
  };
}
