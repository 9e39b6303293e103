import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { capturedDevices, copyMachineFiles, readCapturedMachine, redacted, withKho } from '#dist/capture/index.js';
import { checkMemoryMap } from '#dist/coordinator/index.js';
import { buildConfigSpace, functionHeader } from '#dist/drivers/pci-config-space.js';
import { KhoError } from '#dist/errors.js';
import { parseCommandLine } from '#dist/memblock/index.js';
import {
  bridgeConfig,
  functionFiles,
  IDENTITY,
  interfaceFiles,
  iomemText,
  type MachineFiles,
  microVmFiles,
  msiConfig,
  nodeFiles,
  serverFiles,
  writeMachine,
} from '../support/machine-files.js';
import { temporaryDirectory } from '../support/run.js';

const read = (files: MachineFiles) => readCapturedMachine(writeMachine(files));
const error = (code: string, pattern: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(pattern) });

/** As an arm64 server has it: no firmware's map, and memory that begins at 1 GiB. */
const ARM_IOMEM = iomemText([
  [0x9000000, 0x9000fff, 'pl011@9000000'],
  [0x40000000, 0x7fffffff, 'System RAM'],
  [0x40210000, 0x4195ffff, '  Kernel code'],
  [0x41960000, 0x41ecffff, '  reserved'],
]);

describe('a captured machine', () => {
  it('has release, command line, possible CPUs, endpoints and interfaces of devices', () => {
    const machine = read(serverFiles());
    expect(machine).toMatchObject({
      release: '7.2.13-amd64',
      cmdline: 'BOOT_IMAGE=/vmlinuz root=/dev/sda1 crashkernel=64M kho_scratch=16M,64M,16M kho=on',
      cpus: 8,
    });
    expect(machine.functions.map(({ name, config, group }) => [name, config.length, group])).toEqual([
      ['0000:3b:00.0', 4096, 59],
      ['0000:3b:02.1', 4096, undefined],
      ['0000:5e:00.0', 256, undefined],
      ['0000:5f:00.0', 256, undefined],
      ['10000:01:00.0', 64, undefined],
    ]);
    expect(machine.interfaces).toEqual([
      { name: 'ens1f0np0', address: '02:5a:31:00:9c:77', mtu: 9000, queues: 20 },
      { name: 'ib0', address: Array(20).fill('8a').join(':'), mtu: 2044, queues: 4 },
    ]);
    expect(machine.notices).toEqual([
      expect.stringMatching(/0000:60:00.0 is left out: the device does not answer/),
      expect.stringMatching(/^1 of 5 PCI functions show 64 bytes/),
      expect.stringMatching(/^ib0 has 1 receive and 4 transmit queues/),
    ]);
  });

  it('gives a virtual function the ids that the kernel knows, as vfio-pci does', () => {
    const [, virtual] = read(serverFiles()).functions;
    expect(functionHeader(virtual.config)).toMatchObject({ vendor: 0x8086, device: 0x1889 });
  });

  it("without PCI, nodes and the firmware's map is a machine all the same; KHO is switched on before `--`", () => {
    const machine = read(microVmFiles());
    expect(machine).toMatchObject({
      functions: [],
      interfaces: [],
      cmdline: 'kho=on console=ttyS0 -- init-option kho=off',
    });
    expect(machine.cpus).toBeUndefined();
    expect(machine.notices).toEqual([expect.stringMatching(/^KHO was off/)]);
  });

  it('of another architecture is refused by its name, or by its memory whatever its name: it lies where a PC has none', () => {
    expect(() => read({ 'proc/iomem': ARM_IOMEM, 'proc/sys/kernel/arch': 'aarch64\n' })).toThrow(
      error('KHO_EOPNOTSUPP', /no x86_64, which alone is modelled so far: .*arch is 'aarch64'/),
    );
    const raspberryPi = iomemText([
      [0x0, 0x3b3fffff, 'System RAM'],
      [0x80000, 0x11dffff, '  Kernel code'],
      [0x11e0000, 0x155ffff, '  reserved'],
      [0x1560000, 0x17cffff, '  Kernel data'],
    ]);
    const s390 = iomemText([
      [0x0, 0x1ffffffff, 'System RAM'],
      [0x1000000, 0x1ffffff, '  Kernel code'],
      [0x2000000, 0x27fffff, '  Kernel data'],
      [0x2800000, 0x2bfffff, '  Kernel bss'],
    ]);
    const cases: [string, RegExp][] = [
      [ARM_IOMEM, /iomem has no memory below 1 MiB/],
      [raspberryPi, /iomem:1 has memory in the place of the legacy ROMs \(0xa0000-0xfffff\)/],
      [s390, /iomem:1 has memory in the place of the legacy ROMs/],
    ];
    for (const [iomem, pattern] of cases) {
      expect(() => read({ 'proc/iomem': iomem })).toThrow(error('KHO_EOPNOTSUPP', pattern));
      // The arch file of a PC that another machine's iomem was copied beside.
      expect(() => read({ ...microVmFiles(), 'proc/iomem': iomem })).toThrow(error('KHO_EOPNOTSUPP', pattern));
    }
    const blocks = { 'proc/sys/kernel/arch': 'x86_64\n', ...nodeFiles({ 0: [8, 9] }) };
    expect(() => read(blocks)).toThrow(error('KHO_EOPNOTSUPP', /devices\/system\/node has no memory below 1 MiB/));
    const { 'proc/sys/kernel/arch': _, ...old } = microVmFiles();
    expect(read(old).notices).toContainEqual(
      expect.stringMatching(/arch is missing; the machine is taken to be x86_64/),
    );
  });

  it('is refused where there is none: no directory, a file, a directory of something else', () => {
    expect(() => readCapturedMachine(join(temporaryDirectory(), 'none'))).toThrow(error('KHO_ENOENT', /no directory/));
    expect(() => readCapturedMachine(join(writeMachine({ file: 'x' }), 'file'))).toThrow(
      error('KHO_EINVAL', /is no directory/),
    );
    expect(() => read({ 'host.yaml': 'host: {}\n' })).toThrow(error('KHO_ENOENT', /no files of a machine/));
  });

  it('is refused with the file that is cut, damaged or of another device', () => {
    const server = serverFiles();
    const damaged = buildConfigSpace(IDENTITY);
    damaged[0x41] = 0x40;
    const withByte = (offset: number, byte: number, config: Uint8Array = msiConfig(0)) => {
      config[offset] = byte;
      return config;
    };
    // Any bytes: with a header type as of a bridge it was once left out without a word.
    const random = Uint8Array.from({ length: 256 }, (_, at) => (at * 167 + 13) & 0xff);
    const cases: [MachineFiles, RegExp, string?][] = [
      [{ 'proc/cmdline': 'kho=on' }, /proc\/cmdline is cut/],
      [{ 'proc/cmdline': 'a\nb\n' }, /cmdline has other characters/],
      [{ 'proc/cmdline': `${'x'.repeat(2045)}\n` }, /cmdline has 2052 characters with KHO on; a kernel takes 2047/],
      [{ 'proc/sys/kernel/osrelease': '' }, /osrelease is empty/],
      [{ 'proc/sys/kernel/osrelease': '\n' }, /osrelease is ''; expected 1 to 64 characters of printable ASCII/],
      [{ 'proc/sys/kernel/osrelease': `${'7'.repeat(65)}\n` }, /osrelease is '7{60}…'; expected 1 to 64/],
      [{ 'proc/sys/kernel/osrelease': '7.2-é\n' }, /osrelease is '7.2-é'; expected 1 to 64/],
      [{ 'sys/devices/system/cpu/possible': '0-8191,9000\n' }, /possible has 8193 CPUs; a kernel takes 8192/],
      [{ 'sys/devices/system/cpu/possible': '0-\n' }, /possible is '0-'; expected numbers of CPUs/],
      [functionFiles('0000:3b:00.0', msiConfig(0).slice(0, 63)), /3b:00.0\/config is cut: 63 bytes, not even/],
      [
        functionFiles('0000:3b:00.0', buildConfigSpace(IDENTITY).slice(0, 1000)),
        /config is cut: 1000 bytes; expected 64, 256, 4096/,
      ],
      [functionFiles('0000:3b:00.0', damaged), /config is damaged: the capability list is damaged/],
      [
        functionFiles('0000:3b:00.0', msiConfig(0), { vendor: 0x15b3 }),
        /config is of another device: vendor 0x8086, but 0x15b3 in .*vendor/,
      ],
      [
        functionFiles('0000:3b:00.0', msiConfig(0), { device: 0x1017 }),
        /config is of another device: device 0x1889, but 0x1017 in .*device/,
      ],
      [
        functionFiles('0000:3b:00.0', withByte(0x00, 0xff, withByte(0x01, 0xff))),
        /config is of another device: vendor 0xffff, but 0x8086 in .*vendor/,
      ],
      [
        functionFiles('0000:3b:00.0', withByte(0x0e, 0x85)),
        /3b:00.0\/config is damaged: header type 0x5 at offset 0xe; expected 0, 1 or 2/,
      ],
      [functionFiles('0000:3b:00.0', random), /config is of another device: vendor 0x/],
      [functionFiles('0000:00:1c.0', bridgeConfig().slice(0, 100)), /1c.0\/config is cut: 100 bytes; expected 64/],
      [{ 'sys/bus/pci/devices/0000:3b:00.0/vendor': '8086\n' }, /vendor is '8086'; expected an id/],
      [{ 'sys/bus/pci/devices/0000:61:00.0/vendor': '0x8086\n' }, /0000:61:00.0\/config is missing/],
      [{ 'sys/bus/pci/devices/eth0/config': bridgeConfig() }, /devices\/eth0 is not the name of a PCI function/],
      [{ 'sys/class/net/ib0/mtu': 'many\n' }, /ib0\/mtu is 'many'; expected bytes/],
      [interfaceFiles('eth9', { address: '02:5a' + 'x' }), /eth9\/address is '02:5ax'; expected bytes/],
      [{ 'proc/iomem': 'x'.repeat(2 ** 22 + 1) }, /iomem has more than 4194304 bytes/, 'KHO_E2BIG'],
    ];
    for (const [files, pattern, code = 'KHO_EINVAL'] of cases) {
      expect(() => read({ ...server, ...files }), String(pattern)).toThrow(error(code, pattern));
    }
  });

  it('without its devices does not look at them', () => {
    const root = writeMachine({ ...serverFiles(), ...functionFiles('0000:3b:00.0', new Uint8Array(3)) });
    expect(readCapturedMachine(root, { devices: false })).toMatchObject({ functions: [], interfaces: [] });
  });

  it('names a link of sysfs that leads out of the copy', () => {
    const root = writeMachine(serverFiles());
    rmSync(join(root, 'sys/bus/pci/devices/0000:3b:00.0'), { recursive: true });
    symlinkSync('../../../devices/pci0000:3a/0000:3b:00.0', join(root, 'sys/bus/pci/devices/0000:3b:00.0'));
    expect(() => readCapturedMachine(root)).toThrow(error('KHO_EINVAL', /3b:00.0 links to what is not here; .*cp -RL/));
  });

  it('throws nothing but a KhoError, and gives nothing but a sound map, whichever file has whichever bytes', () => {
    const files = serverFiles();
    const root = writeMachine(files);
    const names = Object.keys(files).filter((name) => files[name] !== null);
    const content = fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc.string().map((text) => Buffer.from(`${text}\n`)),
      fc.bigInt({ min: 0n, max: 2n ** 64n }).map((value) => Buffer.from(`0x${value.toString(16)}\n`)),
    );
    fc.assert(
      fc.property(fc.constantFrom(...names), content, (name, bytes) => {
        const file = join(root, name);
        mkdirSync(dirname(file), { recursive: true });
        writeFileSync(file, bytes);
        try {
          checkMemoryMap(readCapturedMachine(root).memory);
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(KhoError);
        } finally {
          writeFileSync(file, files[name] as string | Uint8Array);
        }
      }),
    );
  });

  it('is the same machine when its files are copied, from links too', () => {
    const root = writeMachine(serverFiles());
    const group = join(root, 'sys/bus/pci/devices/0000:3b:00.0/iommu_group');
    rmSync(group);
    symlinkSync('../../../../kernel/iommu_groups/59', group);
    const copy = join(temporaryDirectory(), 'copy');
    copyMachineFiles(root, copy);
    const tell = ({ notices, ...machine }: ReturnType<typeof readCapturedMachine>, at: string) => ({
      ...machine,
      notices: notices.map((notice) => notice.replaceAll(at, 'ROOT')),
    });
    expect(tell(readCapturedMachine(copy), copy)).toEqual(tell(readCapturedMachine(root), root));
    expect(() => copyMachineFiles(root, copy)).toThrow(error('KHO_EEXIST', /is there already/));
  });

  it('is copied to no place that cannot be, and leaves nothing there', () => {
    const root = writeMachine(microVmFiles());
    const directory = temporaryDirectory();
    const to = (path: string) => () => copyMachineFiles(root, path);
    expect(to('')).toThrow(error('KHO_EINVAL', /'' is no name/));
    expect(to(join(directory, 'no/copy'))).toThrow(
      error('KHO_ENOENT', /no\/copy cannot be written: there is no directory .*\/no$/),
    );
    for (const target of ['nowhere', 'link']) {
      const link = join(temporaryDirectory(), 'link');
      symlinkSync(target, link);
      expect(to(link)).toThrow(error('KHO_EEXIST', /link is there already/));
      expect(to(`${link}/`)).toThrow(error('KHO_EEXIST', /link\/ is there already/));
    }
    expect(to('/dev/null/x')).toThrow(error('KHO_EIO', /^\/dev\/null\/x cannot be written: ENOTDIR/));
    expect(to('/proc/x')).toThrow(error('KHO_EIO', /^\/proc\/x cannot be written: /));
    expect(readdirSync(directory)).toEqual([]);
    copyMachineFiles(root, `${directory}/copy/`);
    expect(readdirSync(directory)).toEqual(['copy']);
    expect(readCapturedMachine(join(directory, 'copy')).release).toBe('6.12.0');
  });

  it('redacted has neither command line nor addresses nor serial numbers, and is otherwise the same', () => {
    const machine = read(serverFiles());
    const clean = redacted(machine);
    expect(clean.cmdline).toBe('kho_scratch=16M,64M,16M kho=on');
    expect(clean.interfaces.map(({ address }) => address)).toEqual([
      '02:00:00:00:00:00',
      `02:${Array(18).fill('00').join(':')}:01`,
    ]);
    const expected = buildConfigSpace({ ...IDENTITY, serialNumber: 0n });
    expect(Buffer.from(clean.functions[0].config).equals(expected)).toBe(true);
    expect(clean.memory).toEqual(machine.memory);
    expect(capturedDevices(clean).map(({ use }) => use)).toEqual(capturedDevices(machine).map(({ use }) => use));
  });
});

describe('withKho', () => {
  it('leaves a kernel that reads the line with KHO on, and every other word as it was', () => {
    expect(withKho('kho=off quiet')).toBe('kho=off kho=on quiet');
    expect(withKho('kho=on quiet kho=0')).toBe('kho=on quiet kho=0 kho=on');
    expect(withKho('kho=off -- kho=on')).toBe('kho=off kho=on -- kho=on');
    expect(withKho('')).toBe('kho=on');
    const word = fc.constantFrom(
      'kho=off',
      'kho=on',
      'kho',
      'kho=maybe',
      'quiet',
      '--',
      'a="b c"',
      'reserve_mem=1M:4K:x',
    );
    fc.assert(
      fc.property(fc.array(word, { maxLength: 6 }), (words) => {
        const cmdline = words.join(' ');
        const before = parseCommandLine(cmdline, { mode: 'kernel', khoDefault: false });
        const after = parseCommandLine(withKho(cmdline), { mode: 'kernel', khoDefault: false });
        expect(after).toEqual({ ...before, kho: true });
      }),
    );
  });
});
