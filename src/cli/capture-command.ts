import { machine as unameMachine } from 'node:os';
import {
  type CapturedMachine,
  capturedDevices,
  copyMachineFiles,
  readCapturedMachine,
  redacted,
} from '../capture/index.js';
import { Host } from '../coordinator/index.js';
import { KhoError } from '../errors.js';
import { formatBytes, plural } from '../report/index.js';
import { hostFieldsOf, hostWith } from './scenario-host.js';
import { EXIT_DONE, type Terminal } from './terminal.js';
import { formatSize } from './units.js';

export interface CaptureCommandOptions {
  /** Files that were copied from another machine; default: this one's. */
  readonly from?: string;
  /** A new directory for copies of the files. */
  readonly dir?: string;
  readonly redact?: boolean;
  /** Bytes of memory that the scenario gives to guests. */
  readonly guestMemory?: number;
  /** False with --no-devices. */
  readonly devices: boolean;
}

/** `khorus capture`: a machine as a scenario, or its files as a directory for `host.from`. */
export function captureMachine(options: CaptureCommandOptions, terminal: Terminal): number {
  const { from, dir, devices, redact = false, guestMemory } = options;
  const root = from ?? '/';
  // Of copied files nothing is known but what they say themselves.
  const arch = from === undefined ? unameMachine() : undefined;
  const ours = redact ? 'redact' : guestMemory === undefined ? undefined : 'guest-memory';
  if (dir !== undefined && ours !== undefined) {
    const text = `--${ours} changes the scenario that is printed, not the files that --dir copies; give one of them`;
    throw new KhoError('KHO_EINVAL', text, { field: ours });
  }
  const read = readCapturedMachine(root, { devices, ...(arch !== undefined && { arch }) });
  const captured = redact ? redacted(read) : read;
  const failure = bootFailure(captured, guestMemory);
  if (failure !== undefined && guestMemory !== undefined) throw failure;
  const more = failure === undefined ? [] : [`${failure.message}: change the scenario before it can be run`];
  const machine = { ...captured, notices: [...captured.notices, ...more] };
  for (const notice of machine.notices) terminal.say(`khorus: ${notice}`);
  if (dir !== undefined) {
    copyMachineFiles(root, dir, { devices, ...(arch !== undefined && { arch }) });
    if (terminal.json) terminal.printJson({ dir, notices: machine.notices });
    else terminal.say(`${dir}: ${describe(machine)}; use it with host: { from: ${dir} }`);
    return EXIT_DONE;
  }
  if (machine.functions.length + machine.interfaces.length === 0) {
    terminal.say('khorus: no devices were captured: add drivers to the scenario before it can be run');
  }
  if (terminal.json) {
    terminal.printJson({
      scenario: { host: hostFieldsOf(machine, { guestMemory }), drivers: capturedDevices(machine) },
      notices: machine.notices,
    });
  } else {
    for (const line of scenarioLines(machine, guestMemory)) terminal.print(line);
  }
  return EXIT_DONE;
}

/** Why the machine does not boot as it is printed: no room for so much of guests, or a small one's for scratch. */
function bootFailure(machine: CapturedMachine, guestMemory: number | undefined): KhoError | undefined {
  try {
    new Host(hostWith({ arch: machine.arch, ...(guestMemory !== undefined && { guestMemory }) }, machine).host);
    return undefined;
  } catch (cause) {
    const { code, message } = KhoError.from(cause);
    const how = guestMemory === undefined ? 'as it is' : `with --guest-memory ${formatSize(guestMemory)}`;
    const field = guestMemory === undefined ? 'host' : 'guest-memory';
    return new KhoError(code, `${how} the machine does not boot: ${message}`, { field }, { cause });
  }
}

/** The machine as a scenario file: one line a range and a device, so that it can be read and changed by hand. */
function* scenarioLines(machine: CapturedMachine, guestMemory: number | undefined): Generator<string, void> {
  const { cmdline, memoryMap, release, ...host } = hostFieldsOf(machine, { guestMemory });
  const { firmware, nodes, kernel, reserved } = memoryMap;
  yield `# ${describe(machine)}. Made by khorus capture; docs/capture.md says what is in it, and what may be secret.`;
  for (const notice of machine.notices) yield `# ${notice}`;
  yield 'host:';
  for (const [field, value] of Object.entries(host)) yield `  ${field}: ${String(value)}`;
  // A JSON string is a YAML string, whatever is in it.
  if (release !== undefined) yield `  release: ${JSON.stringify(release)}`;
  yield `  cmdline: ${JSON.stringify(cmdline)}`;
  yield '  memoryMap:';
  yield '    firmware:';
  for (const { type, ...range } of firmware) yield `      - { ${span(range)}, type: ${type} }`;
  yield '    nodes:';
  for (const { node, ...range } of nodes) yield `      - { node: ${node}, ${span(range)} }`;
  if (kernel !== undefined) yield `    kernel: { ${span(kernel)} }`;
  if (reserved !== undefined) yield '    reserved:';
  for (const range of reserved ?? []) yield `      - { ${span(range)} }`;
  const devices = capturedDevices(machine);
  yield devices.length === 0 ? 'drivers: [] # none were captured: name some' : 'drivers:';
  for (const { use, options } of devices) {
    const fields = Object.entries(options).map(([name, value]) => `${name}: ${JSON.stringify(value)}`);
    yield `  - { use: ${use}, options: { ${fields.join(', ')} } }`;
  }
}

const span = ({ start, end }: { start: number; end: number }) =>
  `start: 0x${start.toString(16)}, end: 0x${end.toString(16)}`;

function describe({
  arch,
  release = 'of an unknown release',
  cpus,
  memory,
  functions,
  interfaces,
}: CapturedMachine): string {
  const nodes = new Set(memory.ranges.map(({ nid }) => nid)).size;
  const size = formatBytes(memory.ranges.reduce((sum, range) => sum + range.size, 0));
  return [
    `Linux ${release} ${arch}`,
    `${size} of memory on ${nodes === 1 ? 'one node' : `${nodes} nodes`}`,
    ...(cpus === undefined ? [] : [plural(cpus, 'CPU')]),
    plural(functions.length, 'PCI function'),
    plural(interfaces.length, 'network interface'),
  ].join(', ');
}
