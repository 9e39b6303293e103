/**
 * ftrace: the trace that runs across the handover, one ring buffer for each CPU.
 *
 * ```dts
 * ftrace0 {
 *     clock = "local";
 *     tracer = "function";
 *     cpus = <2>;
 *     cpu0 {
 *         pages = <u64 ...>;                 // physical addresses, in the order of the ring
 *         entries = <u64>;                   // events in the pages
 *         overrun = <u64>;                   // events that were overwritten before
 *         commit-page = <3>;                 // the last page that has events
 *     };
 *     cpu1 { ... };
 * };
 * ```
 *
 * Preserved memory: each page of a ring by itself, in the kernel's own format (trace-ring-buffer.ts), because a ring is
 * linked of single pages. Each CPU is a shard with pages of its own: `prepare` allocates all, tracing goes on, `freeze`
 * stops it and writes the last page of each ring, and the shards are serialized in parallel.
 */
import * as z from 'zod';
import { defineDriver, PAGE_SIZE, type PhysicalAddress, physicalAddress, Random } from '../driver.js';
import { fdtBytes, textBytes } from './fdt-bound.js';
import { requiredProperty } from './required-property.js';
import { type RingBufferEvent, RingBufferPage, readRingBufferPage } from './trace-ring-buffer.js';

const options = z.strictObject({
  cpus: z.int().min(1).max(1024).default(4).describe('CPUs: ring buffers'),
  pages: z.int().min(1).max(1024).default(8).describe('4 KiB pages of each ring buffer'),
});
type Options = z.infer<typeof options>;

const CLOCKS = ['local', 'global', 'mono'] as const;
const TRACERS = ['function', 'function_graph', 'nop'] as const;

interface Ring {
  readonly overrun: bigint;
  /** Page by page, so that the pages come out equal wherever they are written. */
  readonly pages: readonly (readonly RingBufferEvent[])[];
}

interface State {
  readonly clock: string;
  readonly tracer: string;
  readonly cpus: number;
  /** Made when it is asked for: a shard needs one ring, not all. */
  readonly ring: (cpu: number) => Ring;
}

/** The addresses of the pages of each CPU. */
type Prepared = readonly (readonly PhysicalAddress[])[];

export default defineDriver<Options, State, Prepared>({
  name: 'ftrace',
  compatible: 'ftrace-v1',
  options,

  shards: ({ cpus, pages }) =>
    Array.from({ length: cpus }, (_, cpu) => ({
      pages,
      maxBytes: fdtBytes([
        {
          name: '',
          properties: cpu === 0 ? { clock: textBytes('global'), tracer: textBytes('function_graph'), cpus: 4 } : {},
        },
        { name: 'cpu1023', properties: { pages: pages * 8, entries: 8, overrun: 8, 'commit-page': 4 } },
      ]),
    })),

  create(ctx) {
    const random = ctx.random();
    const seed = random.u64();
    const { cpus, pages } = ctx.options;
    return {
      clock: random.pick(CLOCKS),
      tracer: random.pick(TRACERS),
      cpus,
      ring: (cpu) => makeRing(new Random(`${seed}/cpu${cpu}`), pages),
    };
  },

  prepare(ctx) {
    return Array.from({ length: ctx.options.cpus }, (_, cpu) => {
      const shard = ctx.shard(cpu);
      const { pages } = ctx.state.ring(cpu);
      return pages.map((events, index) => {
        const page = shard.alloc(1);
        shard.preserve(page);
        // The last page is still being written to; what is there yet may as well be nothing.
        ctx.memory.write(page.address, encodePage(index < pages.length - 1 ? events : []));
        return page.address;
      });
    });
  },

  freeze({ state, prepared, memory }) {
    for (const [cpu, addresses] of prepared.entries()) {
      const last = addresses.length - 1;
      memory.write(addresses[last], encodePage(state.ring(cpu).pages[last]));
    }
  },

  serialize(ctx, cpu) {
    const { state, prepared } = ctx;
    if (cpu === 0) ctx.root.string('clock', state.clock).string('tracer', state.tracer).u32('cpus', state.cpus);
    const { pages, overrun } = state.ring(cpu);
    ctx
      .node(`cpu${cpu}`)
      .u64s('pages', prepared[cpu])
      .u64('entries', countEvents(pages))
      .u64('overrun', overrun)
      .u32('commit-page', pages.length - 1);
  },

  cancel(ctx) {
    for (const address of (ctx.prepared ?? []).flat()) {
      ctx.unpreserve({ address, pages: 1 });
      ctx.free({ address, pages: 1 });
    }
  },

  restore(ctx) {
    const { node, memory } = ctx;
    const cpus = requiredProperty(node, 'cpus').u32('little');
    const rings = Array.from({ length: cpus }, (_, cpu): Ring => {
      const child = node.get(`cpu${cpu}`);
      const pages = requiredProperty(child, 'pages')
        .number64s('little')
        .map((value) => {
          const address = physicalAddress(value);
          ctx.claim({ address, pages: 1 });
          return [...readRingBufferPage(memory.read(address, PAGE_SIZE))];
        });
      return { overrun: requiredProperty(child, 'overrun').u64('little'), pages };
    });
    return {
      clock: requiredProperty(node, 'clock').string(),
      tracer: requiredProperty(node, 'tracer').string(),
      cpus,
      ring: (cpu) => rings[cpu],
    };
  },

  snapshot: ({ clock, tracer, cpus, ring }) => ({
    clock,
    tracer,
    rings: Array.from({ length: cpus }, (_, cpu) => ring(cpu)),
  }),
});

/** Fills pages with events until they are full; the last one only in part. */
function makeRing(random: Random, count: number): Ring {
  const overrun = random.u64() >> 40n;
  let time = 10 ** 12 + random.u32();
  const pages = Array.from({ length: count }, (_, index) => {
    const page = new RingBufferPage();
    const events: RingBufferEvent[] = [];
    const limit = index === count - 1 ? 1 + random.below(40) : Number.POSITIVE_INFINITY;
    while (events.length < limit) {
      const event = { time, data: makeEventData(random) };
      if (!page.append(event)) break;
      events.push(event);
      // Mostly microseconds; now and then the CPU was idle for longer than 27 bits can say.
      time += random.oneIn(50) ? random.u32() : random.below(5000);
    }
    return events;
  });
  return { overrun, pages };
}

/** Type, flags, preempt count and PID of a trace entry, then its fields, which are not looked into here. */
function makeEventData(random: Random): Uint8Array {
  const [type, words] = random.pick<readonly [number, number]>([
    [1, 4], // function: ip, parent_ip
    [1, 4],
    [1, 4],
    [2, 6], // sched_switch
    [5, 4 + random.below(40)], // print: text, up to a length that type_len cannot hold
  ]);
  const data = random.bytes(8 + words * 4);
  const header = new DataView(data.buffer, data.byteOffset);
  header.setUint16(0, type, true);
  header.setUint8(2, 0);
  header.setUint8(3, random.below(3));
  header.setUint32(4, 1 + random.below(32768), true);
  return data;
}

function encodePage(events: readonly RingBufferEvent[]): Uint8Array {
  const page = new RingBufferPage();
  for (const event of events) page.append(event);
  return page.bytes;
}

function countEvents(pages: Ring['pages']): number {
  return pages.reduce((sum, events) => sum + events.length, 0);
}
