/**
 * vfio-pci: a PCI function that is assigned to a guest and keeps running through the handover.
 *
 * ```dts
 * 0000-3b-00.0 {                             // a node's name has no ':'
 *     group = <59>;                          // IOMMU group
 *     config-space = [86 80 ...];            // 4096 bytes; of a captured function 64, 256 or 4096
 *     msix-table = [00 10 e0 fe ...];        // 16 bytes an entry; only where the function has MSI-X
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
 * of the configuration space to the MSI-X capability, and learns there how many entries and vectors must follow. A function
 * without MSI-X has as many vectors as its MSI capability says, or one for its interrupt pin, or none.
 *
 * A function of a real machine (docs/capture.md) brings name, group and configuration space as options. What else there
 * is, lies in the device's memory and in the host's kernel, where nobody captured it: it is random as that of a made-up one.
 */
import * as z from 'zod';
import { defineDriver, type FdtNode, KhoError, type Random } from '../driver.js';
import { fdtBytes } from './fdt-bound.js';
import { decodeMsixTable, encodeMsixTable, MSIX_ENTRY_SIZE, type MsixEntry } from './msix-table.js';
import {
  BAR_SIZE,
  buildConfigSpace,
  CONFIG_SPACE_SIZE,
  CONFIG_SPACE_SIZES,
  functionInterrupts,
  PCI_FUNCTION_NAME,
} from './pci-config-space.js';
import { requiredProperty } from './required-property.js';

/** The first function is 3b:00.0, as behind the second root port of many servers. */
const FIRST_FUNCTION = 0x3b00;

const DEFAULT_VECTORS = 16;
const NAME_FORM = 'expected the name of a PCI function, such as 0000:3b:00.0';

const options = z
  .strictObject({
    vectors: z.int().min(1).max(2048).optional().describe('Entries of the MSI-X table; default 16'),
    name: z.string().regex(PCI_FUNCTION_NAME, NAME_FORM).optional().describe('The function, as sysfs names it'),
    group: z.int().min(0).max(0xffffffff).optional().describe('IOMMU group'),
    config: z
      .base64('expected bytes in base64')
      .optional()
      .describe('Configuration space; zeros at its end may be missing'),
    configSize: z
      .literal(CONFIG_SPACE_SIZES, `expected ${CONFIG_SPACE_SIZES.join(', ')}`)
      .optional()
      .describe('Bytes of the configuration space; default 4096'),
  })
  .superRefine(({ config, configSize = CONFIG_SPACE_SIZE, vectors }, { addIssue }) => {
    const wrong = (field: string, message: string) => addIssue({ code: 'custom', path: [field], message });
    if (config === undefined) {
      if (configSize !== CONFIG_SPACE_SIZE) wrong('configSize', "needs 'config'");
      return;
    }
    if (vectors !== undefined) wrong('vectors', "'config' says how many vectors there are; leave this out");
    const { length } = Buffer.from(config, 'base64');
    if (length > configSize) return wrong('config', `${length} bytes are more than configSize, ${configSize}`);
    try {
      functionInterrupts(configSpace(config, configSize));
    } catch (error) {
      wrong('config', KhoError.from(error).message);
    }
  });
type Options = z.infer<typeof options>;

function configSpace(base64: string, size: number = CONFIG_SPACE_SIZE): Uint8Array {
  const config = new Uint8Array(size);
  config.set(Buffer.from(base64, 'base64'));
  return config;
}

/** The vectors of a function with these options, and the entries of its MSI-X table. */
function interruptsOf({ config, configSize, vectors = DEFAULT_VECTORS }: Options): {
  vectors: number;
  entries: number;
} {
  if (config === undefined) return { vectors, entries: vectors };
  const found = functionInterrupts(configSpace(config, configSize));
  return { vectors: found.vectors, entries: found.kind === 'msix' ? found.vectors : 0 };
}

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

  instanceName: ({ name }, index) => name?.replaceAll(':', '-') ?? functionName(FIRST_FUNCTION + index),

  shards: (options) => {
    const { vectors, entries } = interruptsOf(options);
    return [
      {
        maxBytes: fdtBytes([
          {
            name: '',
            properties: {
              group: 4,
              'config-space': options.configSize ?? CONFIG_SPACE_SIZE,
              'msix-table': entries * MSIX_ENTRY_SIZE,
            },
          },
          { name: 'vector2047', count: vectors, properties: { irq: 4, eventfd: 4, cpu: 4, delivered: 8, posted: 0 } },
        ]),
      },
    ];
  },

  create(ctx) {
    const random = ctx.random();
    const { group, config, configSize } = ctx.options;
    const { vectors, entries } = interruptsOf(ctx.options);
    return {
      group: group ?? random.below(1024),
      config: config === undefined ? makeConfigSpace(random, vectors) : configSpace(config, configSize),
      table: Array.from({ length: entries }, () => ({
        destination: random.below(256),
        vector: 0x10 + random.below(0xef),
        masked: random.oneIn(8),
      })),
      vectors: Array.from({ length: vectors }, () => makeVector(random)),
    };
  },

  serialize(ctx) {
    const { group, config, table, vectors } = ctx.state;
    ctx.root.u32('group', group).bytes('config-space', config);
    if (table.length > 0) ctx.root.bytes('msix-table', encodeMsixTable(table));
    const [irq, eventfd, cpu, delivered] = ['irq', 'eventfd', 'cpu', 'delivered'].map((name) => ctx.name(name));
    for (const [index, vector] of vectors.entries()) {
      const node = ctx.node(`vector${index}`);
      node.u32(irq, vector.irq).u32(eventfd, vector.eventfd).u32(cpu, vector.cpu).u64(delivered, vector.delivered);
      if (vector.posted) node.flag('posted');
    }
  },

  restore({ node }) {
    const config = requiredProperty(node, 'config-space').value.slice();
    const { kind, vectors: expected } = functionInterrupts(config);
    const table = decodeMsixTable(node.property('msix-table')?.value ?? new Uint8Array());
    const vectors: Vector[] = [];
    for (const child of node.children()) vectors.push(readVector(child, vectors.length));
    if (table.length !== (kind === 'msix' ? expected : 0) || vectors.length !== expected) {
      const device = kind === 'msix' ? `${expected} MSI-X vectors` : `${expected} vectors (${kind})`;
      const came = `${table.length} MSI-X entries and ${vectors.length} vectors`;
      throw new KhoError('KHO_EINVAL', `${node.path}: the device has ${device}, but ${came} came`, { path: node.path });
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

function makeConfigSpace(random: Random, vectors: number): Uint8Array {
  return buildConfigSpace({
    ...random.pick<(typeof DEVICES)[number]>(DEVICES),
    subsystemVendor: 0x1028,
    subsystemDevice: random.below(65536),
    revision: random.below(4),
    serialNumber: random.u64(),
    bar0: 2 ** 41 + random.below(2 ** 24) * BAR_SIZE, // above the host's memory
    vectors,
  });
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
