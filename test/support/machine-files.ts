import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import {
  buildConfigSpace,
  CAPABILITY_MSI,
  CAPABILITY_MSIX,
  type FunctionIdentity,
} from '#dist/drivers/pci-config-space.js';
import { temporaryDirectory } from './run.js';

/** Files by their paths below a machine's root; null is an empty directory. */
export type MachineFiles = Record<string, string | Uint8Array | null>;

/** The files in a directory of their own, for the calling test. */
export function writeMachine(files: MachineFiles): string {
  const root = temporaryDirectory();
  for (const [path, content] of Object.entries(files)) {
    const file = join(root, path);
    mkdirSync(content === null ? file : dirname(file), { recursive: true });
    if (content !== null) writeFileSync(file, content);
  }
  return root;
}

export type Range = readonly [start: number, last: number, type: string];

const hex = (value: number, width = 0) => value.toString(16).padStart(width, '0');

/** /sys/firmware/memmap. */
export function memmapFiles(ranges: readonly Range[]): MachineFiles {
  return Object.fromEntries(
    ranges.flatMap(([start, last, type], index) => {
      const path = `sys/firmware/memmap/${index}`;
      return [
        [`${path}/start`, `0x${hex(start)}\n`],
        [`${path}/end`, `0x${hex(last)}\n`],
        [`${path}/type`, `${type}\n`],
      ];
    }),
  );
}

/** /proc/iomem; a type that begins with spaces is inside of the range before it. */
export function iomemText(ranges: readonly Range[]): string {
  return ranges
    .map(([start, last, type]) => {
      const name = type.trimStart();
      return `${' '.repeat(type.length - name.length)}${hex(start, 8)}-${hex(last, 8)} : ${name}\n`;
    })
    .join('');
}

/** /sys/devices/system/node: which blocks each node has. */
export function nodeFiles(nodes: Readonly<Record<number, readonly number[]>>, blockSize = 2 ** 27): MachineFiles {
  const files: MachineFiles = { 'sys/devices/system/memory/block_size_bytes': `${hex(blockSize)}\n` };
  for (const [nid, blocks] of Object.entries(nodes)) {
    files[`sys/devices/system/node/node${nid}/cpulist`] = '0-3\n';
    for (const block of blocks) files[`sys/devices/system/node/node${nid}/memory${block}`] = null;
  }
  return files;
}

export const IDENTITY: FunctionIdentity = {
  vendor: 0x8086,
  device: 0x1889,
  subsystemVendor: 0x1028,
  subsystemDevice: 0x0abc,
  revision: 2,
  classCode: 0x020000,
  serialNumber: 0x0123_4567_89ab_cdefn,
  bar0: 0x200_8001_0000,
  vectors: 12,
};

/** A PCI function of sysfs. */
export function functionFiles(
  name: string,
  config: Uint8Array,
  { vendor = 0x8086, device = 0x1889 } = {},
): MachineFiles {
  const path = `sys/bus/pci/devices/${name}`;
  return {
    [`${path}/config`]: config,
    [`${path}/vendor`]: `0x${hex(vendor, 4)}\n`,
    [`${path}/device`]: `0x${hex(device, 4)}\n`,
  };
}

/** A function of conventional PCI, whose MSI capability is for 2^`log2` vectors. */
export function msiConfig(log2: number): Uint8Array {
  const config = buildConfigSpace(IDENTITY).slice(0, 256);
  const at = config.indexOf(CAPABILITY_MSIX, 0x80);
  config[at] = CAPABILITY_MSI;
  config[at + 2] = log2 << 1;
  config[at + 3] = 0;
  return config;
}

/** A function without any capability, and with an interrupt pin or none. */
export function plainConfig(pin: number, size = 256): Uint8Array {
  const config = buildConfigSpace(IDENTITY).slice(0, size);
  config[0x06] = 0;
  config[0x3d] = pin;
  return config;
}

/** A bridge between PCI buses. */
export function bridgeConfig(): Uint8Array {
  const config = buildConfigSpace({ ...IDENTITY, classCode: 0x060400 });
  config[0x0e] = 1;
  return config;
}

/** A network interface of a device. */
export function interfaceFiles(
  name: string,
  { address = '02:5a:31:00:9c:77', mtu = 1500, rx = 2, tx = 2 } = {},
): MachineFiles {
  const path = `sys/class/net/${name}`;
  const queues = [
    ...Array.from({ length: rx }, (_, at) => `rx-${at}`),
    ...Array.from({ length: tx }, (_, at) => `tx-${at}`),
  ];
  return {
    [`${path}/address`]: `${address}\n`,
    [`${path}/mtu`]: `${mtu}\n`,
    [`${path}/device`]: '0000:3b:00.0\n',
    ...Object.fromEntries(queues.map((queue) => [`${path}/queues/${queue}`, null])),
  };
}

/** Two sockets, 1.5 GiB: the low half with holes on node 0, the rest above 4 GiB on node 1. */
export const SERVER_MEMMAP: readonly Range[] = [
  [0x0, 0x9d3ff, 'System RAM'],
  [0x9d400, 0x9ffff, 'Reserved'],
  [0xe0000, 0xfffff, 'Reserved'],
  [0x100000, 0x2fffffff, 'System RAM'],
  [0x30000000, 0x300fffff, 'ACPI Non-volatile Storage'],
  [0x30100000, 0x3fff0fff, 'System RAM'],
  [0x3fff1000, 0x3fffffff, 'ACPI Tables'],
  [0xe0000000, 0xefffffff, 'Reserved'],
  [0x100000000, 0x11fffffff, 'System RAM'],
];
export const SERVER_IOMEM: readonly Range[] = [
  [0x0, 0xfff, 'Reserved'],
  [0x1000, 0x9d3ff, 'System RAM'],
  [0x9d400, 0x9ffff, 'Reserved'],
  [0xa0000, 0xbffff, 'PCI Bus 0000:00'],
  [0xe0000, 0xfffff, 'Reserved'],
  [0xf0000, 0xfffff, '  System ROM'],
  [0x100000, 0x2fffffff, 'System RAM'],
  [0x1000000, 0x1ffffff, '  Kernel code'],
  [0x2000000, 0x27fffff, '  Kernel rodata'],
  [0x2800000, 0x2bfffff, '  Kernel data'],
  [0x2f00000, 0x2ffffff, '  Kernel bss'],
  [0x28000000, 0x2bffffff, '  Crash kernel'],
  [0x30000000, 0x300fffff, 'ACPI Non-volatile Storage'],
  [0x30100000, 0x3fff0fff, 'System RAM'],
  [0x3fff1000, 0x3fffffff, 'ACPI Tables'],
  [0x40000000, 0xdfffffff, 'PCI Bus 0000:00'],
  [0x50000000, 0x500fffff, '  PCI Bus 0000:3b'],
  [0x50000000, 0x5000ffff, '    0000:3b:00.0'],
  [0x50000000, 0x5000ffff, '      vfio-pci'],
  [0xe0000000, 0xefffffff, 'Reserved'],
  [0x100000000, 0x11fffffff, 'System RAM'],
  [0x200000000000, 0x3fffffffffff, 'PCI Bus 0000:80'],
];

/** {@link SERVER_MEMMAP} with everything that a capture has. */
export function serverFiles(): MachineFiles {
  const virtual = buildConfigSpace({ ...IDENTITY, vendor: 0xffff, device: 0xffff });
  return {
    'proc/iomem': iomemText(SERVER_IOMEM),
    'proc/cmdline': 'BOOT_IMAGE=/vmlinuz root=/dev/sda1 crashkernel=64M kho_scratch=16M,64M,16M kho=on\n',
    'proc/sys/kernel/osrelease': '7.2.13-amd64\n',
    'proc/sys/kernel/arch': 'x86_64\n',
    'sys/devices/system/cpu/possible': '0-3,8-11\n',
    'sys/devices/system/cpu/present': '0-3\n',
    ...memmapFiles(SERVER_MEMMAP),
    ...nodeFiles({ 0: [0, 1, 2, 3, 4, 5, 6, 7], 1: [32, 33, 34, 35] }),
    ...functionFiles('0000:00:00.0', buildConfigSpace({ ...IDENTITY, classCode: 0x060000 })),
    ...functionFiles('0000:00:1c.0', bridgeConfig()),
    ...functionFiles('0000:3b:00.0', buildConfigSpace(IDENTITY)),
    'sys/bus/pci/devices/0000:3b:00.0/iommu_group': '59\n',
    ...functionFiles('0000:3b:02.1', virtual, { vendor: 0x8086, device: 0x1889 }),
    ...functionFiles('0000:5e:00.0', msiConfig(3)),
    ...functionFiles('0000:5f:00.0', plainConfig(1)),
    ...functionFiles('10000:01:00.0', plainConfig(0, 64)),
    ...functionFiles('0000:60:00.0', new Uint8Array(4096).fill(0xff)),
    ...interfaceFiles('ens1f0np0', { mtu: 9000, rx: 20, tx: 20 }),
    ...interfaceFiles('ib0', { address: Array(20).fill('8a').join(':'), mtu: 2044, rx: 1, tx: 4 }),
    'sys/class/net/lo/mtu': '65536\n',
    'sys/class/net/bonding_masters': 'bond0\n',
  };
}

/** Four sockets, 1.5 TiB, with the devices of {@link serverFiles}. */
export function largeServerFiles(): MachineFiles {
  const block = 2 ** 31;
  const end = 2 ** 32 + 768 * block;
  const memory: Range[] = [
    [0x1000, 0x9ffff, 'System RAM'],
    [0x100000, block - 1, 'System RAM'],
    [2 ** 32, end - 1, 'System RAM'],
  ];
  const kernel: Range[] = [
    [0x1000000, 0x1ffffff, '  Kernel code'],
    [0x2000000, 0x2ffffff, '  Kernel data'],
    [0x3000000, 0x3ffffff, '  Kernel bss'],
  ];
  const devices = Object.entries(serverFiles()).filter(([path]) => /^sys\/(bus|class)\/|^proc\/sys\//.test(path));
  const blocks = (first: number, count: number) => Array.from({ length: count }, (_, index) => first + index);
  return {
    ...Object.fromEntries(devices),
    'proc/iomem': iomemText([...memory.slice(0, 2), ...kernel, memory[2]]),
    // Scratch as in scenarios/big-host.yaml: what the kernel would take by default does not fit.
    'proc/cmdline': 'kho=on kho_scratch=512M,1G,7G\n',
    'sys/devices/system/cpu/possible': '0-95\n',
    ...memmapFiles(memory),
    ...nodeFiles(Object.fromEntries([0, 1, 2, 3].map((nid) => [nid, blocks(2 + nid * 192, 192)])), block),
    'sys/devices/system/node/node0/memory0': null,
  };
}

/** A small virtual machine: no PCI, no nodes, no firmware's map. */
export function microVmFiles(): MachineFiles {
  return {
    'proc/iomem': iomemText([
      [0x1000, 0x9fbff, 'System RAM'],
      [0x9fc00, 0xfffff, 'Reserved'],
      [0x100000, 0x1fffffff, 'System RAM'],
      [0x1000000, 0x17fffff, '  Kernel code'],
      [0x1800000, 0x1bfffff, '  Kernel data'],
      [0x1c00000, 0x1ffffff, '  Kernel bss'],
    ]),
    'proc/cmdline': 'console=ttyS0 -- init-option kho=off\n',
    'proc/sys/kernel/osrelease': '6.12.0\n',
    'proc/sys/kernel/arch': 'x86_64\n',
  };
}
