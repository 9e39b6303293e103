import { expect, test } from 'vitest';
import { parseScenario, planOf, type Scenario } from '#dist/cli/scenario.js';
import { iomemText, type MachineFiles, microVmFiles, serverFiles, writeMachine } from '../support/machine-files.js';
import { temporaryDirectory } from '../support/run.js';

const builtIn = ['netdevsim', 'vfio-pci', 'iommu'].map((origin) => ({ origin, url: `file:///drivers/${origin}.js` }));

const parse = (text: string, directory = temporaryDirectory()): Scenario =>
  parseScenario(text, { file: 'host.yaml', directory, builtIn });
const captured = (text: string, files: MachineFiles = serverFiles()): Scenario => parse(text, writeMachine(files));
const problem = (code: string, pattern: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(pattern) });

test('a captured host is the machine of its files; its devices are instances, before the drivers of the scenario', () => {
  const scenario = captured('host: { from: . }\ndrivers: [{ use: iommu, after: [vfio-pci] }]\n');
  expect(scenario.host).toMatchObject({
    memory: 0x9c000 + 0x2ff00000 + 0xfef1000 + 0x20000000,
    nodes: 2,
    cpus: 8,
    release: '7.2.13-amd64',
    cmdlineRules: 'kernel',
    memoryMap: { kernel: { address: 0x1000000 } },
  });
  expect(scenario.drivers.map(({ module }) => module.origin)).toEqual([
    ...Array(5).fill('vfio-pci'),
    'netdevsim',
    'netdevsim',
    'iommu',
  ]);
  expect(scenario.drivers[0]).toMatchObject({
    options: { name: '0000:3b:00.0', group: 59, configSize: 4096 },
    where: 'host.yaml:1',
  });
  expect(scenario.notices).toHaveLength(3);
  expect(planOf(scenario).drivers).toHaveLength(8);
});

test("fields beside `from` say otherwise than the files; a command line of one's own is read strictly", () => {
  const { host, drivers } = captured(`
host: { from: ., devices: false, cpus: 2, release: mine, kernelSize: 8M, cmdline: "kho=on" }
drivers: [{ use: iommu }]
`);
  expect(host).toMatchObject({ cpus: 2, release: 'mine', kernelSize: 2 ** 23, cmdline: 'kho=on' });
  expect(host.cmdlineRules).toBeUndefined();
  expect(drivers).toHaveLength(1);
});

test('what the kernel ignored on a captured command line is a warning', () => {
  const files = { ...serverFiles(), 'proc/cmdline': 'kho=on kho_scratch=1G\n' };
  expect(captured('host: { from: . }\n', files).notices?.at(-1)).toMatch(
    /^kho_scratch=1G: expected .* scratch stays at 200 %/,
  );
});

test('what contradicts a captured machine, or a memory map, is told with field and line', () => {
  expect(() => captured('host: { from: ., memory: 2G,\n nodes: 2 }\n')).toThrow(
    problem(
      'KHO_ESCENARIO',
      /'memory' contradicts 'from'.* \(host.yaml:1:18, host.memory\)\n'nodes' contradicts 'from'.* \(host.yaml:2:2, host.nodes\)/,
    ),
  );
  expect(() => parse('host: { memory: 2G, devices: true }\ndrivers: [{ use: iommu }]\n')).toThrow(
    problem('KHO_ESCENARIO', /'devices' needs 'from'/),
  );
  expect(() => parse('host: { nodes: 2 }\n')).toThrow(
    problem('KHO_ESCENARIO', /'drivers' is missing[\s\S]*'memory' is missing; expected a size .*, or 'from: DIR'/),
  );
});

test('a captured machine without devices needs drivers', () => {
  expect(() => captured('host: { from: . }\n', microVmFiles())).toThrow(
    problem('KHO_ESCENARIO', /has no devices, and there are no drivers/),
  );
  expect(captured('host: { from: . }\ndrivers: [{ use: iommu }]\n', microVmFiles()).host).toMatchObject({
    nodes: 1,
    cpus: 2,
  });
});

test('the files of a captured machine keep their own errors', () => {
  const arm = {
    'proc/iomem': iomemText([[0x40000000, 0x7fffffff, 'System RAM']]),
    'proc/sys/kernel/arch': 'aarch64\n',
  };
  expect(() => captured('host: { from: . }\n', arm)).toThrow(problem('KHO_EOPNOTSUPP', /'aarch64'/));
  expect(() => captured('host: { from: nowhere }\n')).toThrow(problem('KHO_ENOENT', /there is no directory .*nowhere/));
});

test('a memory map in the scenario has inclusive ends, in hexadecimal too', () => {
  const { host } = parse(`
host:
  memoryMap:
    firmware: [{ start: 0x100000, end: 0xfffffff, type: System RAM }, { start: 0x10000000, end: 0x1fffffff, type: Reserved }]
    nodes: [{ start: 0x100000, end: 0x7ffffff }, { node: 2, start: 0x8000000, end: 0xfffffff }]
    kernel: { start: 0x1000000, end: 0x1ffffff }
drivers: [{ use: iommu }]
`);
  expect(host).toMatchObject({
    memory: 255 * 2 ** 20,
    nodes: 2,
    cmdline: 'kho=on',
    memoryMap: {
      firmware: [
        { base: 2 ** 20, size: 255 * 2 ** 20, usable: true },
        { base: 2 ** 28, size: 2 ** 28, usable: false },
      ],
      ranges: [
        { base: 2 ** 20, size: 127 * 2 ** 20, nid: 0 },
        { base: 2 ** 27, size: 2 ** 27, nid: 2 },
      ],
      kernel: { address: 2 ** 24, size: 2 ** 24 },
    },
  });
});

test('an unknown field of a memory map is told with those there are', () => {
  expect(() =>
    parse('host: { memoryMap: { firmware: [], nodes: [{ nid: 0, start: 0, end: 1 }] } }\ndrivers: [{ use: iommu }]\n'),
  ).toThrow(problem('KHO_ESCENARIO', /unknown field 'nid'.*(did you mean|known here).*node/));
});
