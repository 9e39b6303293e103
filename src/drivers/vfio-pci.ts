/**
 * vfio-pci: a PCI function that is assigned to a guest and keeps running through the handover.
 *
 * ```dts
 * 0000-3b-00.0 {                             // a node's name has no ':'
 *     group = <59>;                          // IOMMU group
 *     config-space = [86 80 ...];            // 4096 bytes
 *     msix-table = [00 10 e0 fe ...];        // 16 bytes an entry
 *     vector0 {                              // how the host delivers entry 0 to the guest
 *         irq = <142>;                       // of the host
 *         eventfd = <31>;                    // token of the VMM's eventfd
 *         cpu = <7>;                         // affinity
 *         delivered = <u64>;
 *         posted;                            // posted into the guest by the IOMMU: no exit
 *     };
 * };
 * ```
 *
 * No memory is preserved. The successor trusts no number that the device can tell itself: it follows the capability list
 * of the configuration space to the MSI-X capability, and learns there how many entries and vectors must follow.
 */
import * as z from 'zod';
import { defineDriver, type FdtNode, KhoError, type Random } from '../driver.js';
import { fdtBytes } from './fdt-bound.js';
import { decodeMsixTable, encodeMsixTable, MSIX_ENTRY_SIZE, type MsixEntry } from './msix-table.js';
import { BAR_SIZE, buildConfigSpace, CONFIG_SPACE_SIZE, msixCapability } from './pci-config-space.js';
import { requiredProperty } from './required-property.js';

/** The first function is 3b:00.0, as behind the second root port of many servers. */
const FIRST_FUNCTION = 0x3b00;

const options = z.strictObject({
  vectors: z.int().min(1).max(2048).default(16).describe('Entries of the MSI-X table'),
});
type Options = z.infer<typeof options>;

interface Vector {
  readonly irq: number;
  readonly eventfd: number;
  readonly cpu: number;
  readonly delivered: bigint;
  readonly posted: boolean;
}

interface State {
  readonly group: number;
  readonly config: Uint8Array;
  readonly table: readonly MsixEntry[];
  readonly vectors: readonly Vector[];
}

export default defineDriver<Options, State>({
  name: 'vfio-pci',
  compatible: 'vfio-pci-v1',
  options,

  instanceName: (_options, index) => functionName(FIRST_FUNCTION + index),

  shards: ({ vectors }) => [
    {
      maxBytes: fdtBytes([
        {
          name: '',
          properties: { group: 4, 'config-space': CONFIG_SPACE_SIZE, 'msix-table': vectors * MSIX_ENTRY_SIZE },
        },
        { name: 'vector2047', count: vectors, properties: { irq: 4, eventfd: 4, cpu: 4, delivered: 8, posted: 0 } },
      ]),
    },
  ],

  create(ctx) {
    const random = ctx.random();
    const { vectors } = ctx.options;
    return {
      group: random.below(1024),
      config: buildConfigSpace({
        ...random.pick<(typeof DEVICES)[number]>(DEVICES),
        subsystemVendor: 0x1028,
        subsystemDevice: random.below(65536),
        revision: random.below(4),
        serialNumber: random.u64(),
        bar0: 2 ** 41 + random.below(2 ** 24) * BAR_SIZE, // above the host's memory
        vectors,
      }),
      table: Array.from({ length: vectors }, () => ({
        destination: random.below(256),
        vector: 0x10 + random.below(0xef),
        masked: random.oneIn(8),
      })),
      vectors: Array.from({ length: vectors }, () => makeVector(random)),
    };
  },

  serialize(ctx) {
    const { group, config, table, vectors } = ctx.state;
    ctx.root.u32('group', group).bytes('config-space', config).bytes('msix-table', encodeMsixTable(table));
    const [irq, eventfd, cpu, delivered] = ['irq', 'eventfd', 'cpu', 'delivered'].map((name) => ctx.name(name));
    for (const [index, vector] of vectors.entries()) {
      const node = ctx.node(`vector${index}`);
      node.u32(irq, vector.irq).u32(eventfd, vector.eventfd).u32(cpu, vector.cpu).u64(delivered, vector.delivered);
      if (vector.posted) node.flag('posted');
    }
  },

  restore({ node }) {
    const config = requiredProperty(node, 'config-space').value.slice();
    const table = decodeMsixTable(requiredProperty(node, 'msix-table').value);
    const vectors: Vector[] = [];
    for (const child of node.children()) vectors.push(readVector(child, vectors.length));
    const expected = msixCapability(config).vectors;
    if (table.length !== expected || vectors.length !== expected) {
      throw new KhoError(
        'KHO_EINVAL',
        `${node.path}: the device has ${expected} MSI-X vectors, but ${table.length} entries and ${vectors.length} vectors came`,
        { path: node.path },
      );
    }
    return { group: requiredProperty(node, 'group').u32('little'), config, table, vectors };
  },

  snapshot: (state) => state,
});

/** Functions that are often assigned to guests. */
const DEVICES = [
  { vendor: 0x8086, device: 0x1889, classCode: 0x020000 }, // Intel E810 virtual function
  { vendor: 0x15b3, device: 0x101e, classCode: 0x020000 }, // Mellanox ConnectX virtual function
  { vendor: 0x144d, device: 0xa824, classCode: 0x010802 }, // Samsung NVMe controller
  { vendor: 0x10de, device: 0x2330, classCode: 0x030200 }, // NVIDIA H100
] as const;

/** `number` holds segment:16, bus:8, device:5, function:3, so each index has a name of its own. */
function functionName(number: number): string {
  const digits = (value: number, length: number) => value.toString(16).padStart(length, '0');
  const segment = digits(Math.floor(number / 2 ** 16), 4);
  return `${segment}-${digits((number >>> 8) & 0xff, 2)}-${digits((number >>> 3) & 0x1f, 2)}.${number & 7}`;
}

function makeVector(random: Random): Vector {
  return {
    irq: 24 + random.below(4096),
    eventfd: random.u32(),
    cpu: random.below(256),
    delivered: random.u64() >> 20n,
    posted: random.oneIn(2),
  };
}

function readVector(node: FdtNode, index: number): Vector {
  if (node.name !== `vector${index}`) {
    throw new KhoError('KHO_EINVAL', `${node.path} stands where vector${index} should`, { path: node.path });
  }
  return {
    irq: requiredProperty(node, 'irq').u32('little'),
    eventfd: requiredProperty(node, 'eventfd').u32('little'),
    cpu: requiredProperty(node, 'cpu').u32('little'),
    delivered: requiredProperty(node, 'delivered').u64('little'),
    posted: node.property('posted') !== undefined,
  };
}
