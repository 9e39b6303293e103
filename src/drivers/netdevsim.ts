/**
 * netdevsim: a simulated network device with many queues, all of its state in the FDT.
 *
 * ```dts
 * netdevsim0 {
 *     ifname = "eth0";
 *     mac = [02 5a 31 00 9c 77];             // locally administered
 *     mtu = <9000>;
 *     features = <u64>;                      // NETIF_F_* bits
 *     queues = <8>;
 *     filters = <4>;
 *     filter0 {                              // an ntuple rule: what matches goes to a queue, or nowhere
 *         flow = "tcp4";
 *         destination = [0a 00 00 2a];  destination-mask = [ff ff ff 00];
 *         port = <443>;
 *         queue = <3>;                       // or: drop;
 *     };
 *     rx0 { packets = <u64>; bytes; drops; errors; alloc-fail; csum-complete; ring-size = <u32>; head; tail; };
 *     tx0 { packets = <u64>; bytes; drops; busy; restart; tso-packets; ring-size = <u32>; head; tail; };
 * };
 * ```
 *
 * It shows sharding: a device of many queues is serialized by several workers at once, QUEUES_PER_SHARD pairs
 * each. All of them write below the same node; shard 0 adds the device itself. The state therefore holds no queues but a
 * seed for them: `create` runs anew for each shard, and a shard makes only the queues that it writes.
 */

import * as z from 'zod';
import { defineDriver, type FdtNode, KhoError, type NodeWriter, Random, type ShardAccess } from '../driver.js';
import { fdtBytes, textBytes } from './fdt-bound.js';
import { requiredProperty } from './required-property.js';

/** Pairs of queues that one shard serializes. */
export const QUEUES_PER_SHARD = 16;

/** IFNAMSIZ without the NUL; dev_valid_name() refuses the rest. */
const IFNAME = /^(?!\.{1,2}$)[^\s/:]{1,15}$/;
/** Up to MAX_ADDR_LEN bytes: 6 of Ethernet, 20 of InfiniBand. */
const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){0,31}$/i;
const MAC_FORM = 'expected bytes in hexadecimal with colons between, such as 02:5a:31:00:9c:77';

const options = z.strictObject({
  queues: z.int().min(1).max(1024).default(8).describe('Pairs of a receive and a transmit queue'),
  filters: z.int().min(0).max(4096).default(4).describe('Flow filters (ntuple rules)'),
  ifname: z
    .string()
    .regex(IFNAME, 'expected the name of a network interface')
    .optional()
    .describe('Default: eth0, eth1, …'),
  mac: z.string().regex(MAC, MAC_FORM).optional().describe('Hardware address; default: random'),
  mtu: z.int().min(0).max(0xffffffff).optional().describe('Default: 1500 or 9000 at random'),
});
type Options = z.infer<typeof options>;

/** Counters of a queue, all of them u64. */
const RX_COUNTERS = ['packets', 'bytes', 'drops', 'errors', 'alloc-fail', 'csum-complete'] as const;
const TX_COUNTERS = ['packets', 'bytes', 'drops', 'busy', 'restart', 'tso-packets'] as const;
const FLOWS = { tcp4: 4, udp4: 4, tcp6: 16, udp6: 16 } as const;
type Flow = keyof typeof FLOWS;

interface Queue {
  readonly counters: readonly bigint[];
  readonly ringSize: number;
  readonly head: number;
  readonly tail: number;
}

interface Filter {
  readonly flow: Flow;
  readonly destination: Uint8Array;
  readonly destinationMask: Uint8Array;
  readonly port: number;
  /** The queue that gets matching packets; undefined drops them. */
  readonly queue: number | undefined;
}

interface State {
  readonly ifname: string;
  readonly mac: Uint8Array;
  readonly mtu: number;
  readonly features: bigint;
  readonly filters: readonly Filter[];
  readonly queues: number;
  readonly rx: (index: number) => Queue;
  readonly tx: (index: number) => Queue;
}

export default defineDriver<Options, State>({
  name: 'netdevsim',
  compatible: 'netdevsim-v1',
  options,

  // An instance with a name of its own is called by it; `:` and the like have no place in a node's name.
  instanceName: ({ ifname }, index) => ifname?.replaceAll(/[^A-Za-z0-9,._+-]/g, '-') ?? `netdevsim${index}`,

  shards: ({ queues, filters, mac }) =>
    Array.from({ length: Math.ceil(queues / QUEUES_PER_SHARD) }, (_, shard) => {
      const count = Math.min(QUEUES_PER_SHARD, queues - shard * QUEUES_PER_SHARD);
      const shapes = [queueShape('rx1023', count, RX_COUNTERS), queueShape('tx1023', count, TX_COUNTERS)];
      return { maxBytes: fdtBytes(shard === 0 ? [...shapes, deviceShape(mac), filterShape(filters)] : shapes) };
    }),

  create(ctx) {
    const device = ctx.random('device');
    const { queues, filters, ifname, mac, mtu } = ctx.options;
    const seed = device.u64();
    return {
      ifname: ifname ?? `eth${ctx.index}`,
      mac: mac === undefined ? Uint8Array.of(0x02, ...device.bytes(5)) : macBytes(mac),
      mtu: mtu ?? device.pick([1500, 9000]),
      features: device.u64(),
      filters: Array.from({ length: filters }, () => makeFilter(device, queues)),
      queues,
      rx: (index) => makeQueue(new Random(`${seed}/rx${index}`), RX_COUNTERS.length),
      tx: (index) => makeQueue(new Random(`${seed}/tx${index}`), TX_COUNTERS.length),
    };
  },

  serialize(ctx, shard) {
    const { state } = ctx;
    if (shard === 0) writeDevice(ctx.root, state);
    const rx = queueWriter(ctx, RX_COUNTERS);
    const tx = queueWriter(ctx, TX_COUNTERS);
    const first = shard * QUEUES_PER_SHARD;
    for (let index = first; index < Math.min(first + QUEUES_PER_SHARD, state.queues); index++) {
      rx(ctx.node(`rx${index}`), state.rx(index));
      tx(ctx.node(`tx${index}`), state.tx(index));
    }
  },

  restore({ node }) {
    const queues = requiredProperty(node, 'queues').u32('little');
    const filters = requiredProperty(node, 'filters').u32('little');
    // One pass over the children: asking for each by name would search the node again each time.
    const children = new Map(Array.from(node.children(), (child) => [child.name, child]));
    const child = (name: string): FdtNode => children.get(name) ?? node.get(name);
    const rx = Array.from({ length: queues }, (_, index) => readQueue(child(`rx${index}`), RX_COUNTERS));
    const tx = Array.from({ length: queues }, (_, index) => readQueue(child(`tx${index}`), TX_COUNTERS));
    return {
      ifname: requiredProperty(node, 'ifname').string(),
      mac: requiredProperty(node, 'mac').value.slice(),
      mtu: requiredProperty(node, 'mtu').u32('little'),
      features: requiredProperty(node, 'features').u64('little'),
      filters: Array.from({ length: filters }, (_, index) => readFilter(child(`filter${index}`))),
      queues,
      rx: (index) => rx[index],
      tx: (index) => tx[index],
    };
  },

  snapshot({ rx, tx, ...device }) {
    const indices = Array.from({ length: device.queues }, (_, index) => index);
    return { ...device, rx: indices.map(rx), tx: indices.map(tx) };
  },
});

function makeQueue(random: Random, counters: number): Queue {
  const ringSize = random.pick([256, 512, 1024, 4096]);
  return {
    counters: Array.from({ length: counters }, () => random.u64() >> BigInt(random.below(48))),
    ringSize,
    head: random.below(ringSize),
    tail: random.below(ringSize),
  };
}

function makeFilter(random: Random, queues: number): Filter {
  const flow = random.pick<Flow>(['tcp4', 'udp4', 'tcp6', 'udp6']);
  const length = FLOWS[flow];
  const prefix = 1 + random.below(length);
  return {
    flow,
    destination: random.bytes(length),
    destinationMask: new Uint8Array(length).fill(0xff, 0, prefix),
    port: random.below(65536),
    queue: random.oneIn(4) ? undefined : random.below(queues),
  };
}

/** IFNAMSIZ less the NUL. */
const LONGEST_IFNAME = 'eth4294967295xx';

function deviceShape(mac: string | undefined) {
  const length = mac === undefined ? 6 : macBytes(mac).length;
  const properties = { ifname: textBytes(LONGEST_IFNAME), mac: length, mtu: 4, features: 8, queues: 4, filters: 4 };
  return { name: '', properties };
}

function macBytes(mac: string): Uint8Array {
  return Uint8Array.from(mac.split(':'), (byte) => Number.parseInt(byte, 16));
}

function filterShape(count: number) {
  const properties = { flow: textBytes('tcp4'), destination: 16, 'destination-mask': 16, port: 4, queue: 4, drop: 0 };
  return { name: 'filter4095', count, properties };
}

function queueShape(name: string, count: number, counters: readonly string[]) {
  const properties: Record<string, number> = { 'ring-size': 4, head: 4, tail: 4 };
  for (const counter of counters) properties[counter] = 8;
  return { name, count, properties };
}

function writeDevice(node: NodeWriter, { ifname, mac, mtu, features, queues, filters }: State): void {
  node.string('ifname', ifname).bytes('mac', mac).u32('mtu', mtu).u64('features', features);
  node.u32('queues', queues).u32('filters', filters.length);
  for (const [index, filter] of filters.entries()) {
    const child = node.node(`filter${index}`).string('flow', filter.flow);
    child.bytes('destination', filter.destination).bytes('destination-mask', filter.destinationMask);
    child.u32('port', filter.port);
    if (filter.queue === undefined) child.flag('drop');
    else child.u32('queue', filter.queue);
  }
}

/** Names looked up once for all queues of a shard: this is the hot loop of the driver. */
function queueWriter(shard: ShardAccess, counters: readonly string[]): (node: NodeWriter, queue: Queue) => void {
  const names = counters.map((counter) => shard.name(counter));
  const [ringSize, head, tail] = [shard.name('ring-size'), shard.name('head'), shard.name('tail')];
  return (node, queue) => {
    for (let index = 0; index < names.length; index++) node.u64(names[index], queue.counters[index]);
    node.u32(ringSize, queue.ringSize).u32(head, queue.head).u32(tail, queue.tail);
  };
}

function readQueue(node: FdtNode, counters: readonly string[]): Queue {
  return {
    counters: counters.map((counter) => requiredProperty(node, counter).u64('little')),
    ringSize: requiredProperty(node, 'ring-size').u32('little'),
    head: requiredProperty(node, 'head').u32('little'),
    tail: requiredProperty(node, 'tail').u32('little'),
  };
}

function readFilter(node: FdtNode): Filter {
  const flow = requiredProperty(node, 'flow').string();
  if (!isFlow(flow)) {
    throw new KhoError('KHO_EINVAL', `${node.path}: unknown flow '${flow}'`, { path: node.path, property: 'flow' });
  }
  return {
    flow,
    destination: requiredProperty(node, 'destination').value.slice(),
    destinationMask: requiredProperty(node, 'destination-mask').value.slice(),
    port: requiredProperty(node, 'port').u32('little'),
    queue: node.property('drop') === undefined ? requiredProperty(node, 'queue').u32('little') : undefined,
  };
}

function isFlow(text: string): text is Flow {
  return Object.hasOwn(FLOWS, text);
}
