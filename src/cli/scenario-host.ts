import { resolve } from 'node:path';
import type { z } from 'zod';
import { type CapturedDevice, type CapturedMachine, capturedDevices, readCapturedMachine } from '../capture/index.js';
import type { HostMemoryMap, HostOptions } from '../coordinator/index.js';
import { parseCommandLine, physicalAddress } from '../memblock/index.js';
import type { ScenarioDocument } from './scenario-document.js';
import type { ScenarioProblem } from './scenario-problem.js';
import { DRIVERS_FORM, FIRMWARE_TYPES, type MemoryMapFields, type scenarioSchema } from './scenario-schema.js';
import { formatSize, SIZE_FORM } from './units.js';

type HostFields = z.infer<typeof scenarioSchema>['host'];

/** CPUs for each NUMA node, where nothing is said. */
const CPUS_PER_NODE = 2;
const DEFAULT_CMDLINE = 'kho=on';
const DEFAULT_RELEASE = '7.2.0-khorus';
/** The drivers that a captured machine's devices are instances of. */
export const CAPTURED_DRIVERS: readonly CapturedDevice['use'][] = ['netdevsim', 'vfio-pci'];
/** The ways to say what memory there is; the others do not go beside one of them. */
const MEMORY_FIELDS = {
  from: ['memory', 'nodes', 'memoryMap', 'cmdlineRules'],
  memoryMap: ['memory', 'nodes'],
} as const;

/** What is wrong between fields, each of which may be right. */
export function hostProblems(document: ScenarioDocument): ScenarioProblem[] {
  const root = fieldsOf(document.value);
  const host = fieldsOf(root?.host);
  if (root === undefined) return [];
  const problems: ScenarioProblem[] = [];
  if (host !== undefined) {
    for (const [field, others] of Object.entries(MEMORY_FIELDS)) {
      if (host[field] === undefined) continue;
      for (const other of others.filter((name) => host[name] !== undefined)) {
        const what = `'${other}' contradicts '${field}', which says where the memory of the machine is; leave one of them out`;
        problems.push(document.problem(what, ['host', other], 'key'));
      }
    }
    if (Object.keys(MEMORY_FIELDS).every((field) => host[field] === undefined) && host.memory === undefined) {
      const what = `the field 'memory' is missing; expected ${SIZE_FORM}, or 'from: DIR' with a captured machine's files`;
      problems.push(document.problem(what, ['host', 'memory']));
    }
    if (host.devices !== undefined && host.from === undefined) {
      problems.push(document.problem("'devices' needs 'from', whose devices it speaks of", ['host', 'devices'], 'key'));
    }
  }
  if (host?.from !== undefined) return problems;
  if (root.drivers === undefined) {
    problems.push(document.problem(`the field 'drivers' is missing; expected ${DRIVERS_FORM}`, ['drivers']));
  } else if (Array.isArray(root.drivers) && root.drivers.length === 0) {
    problems.push(document.problem(`found an empty list; expected ${DRIVERS_FORM}`, ['drivers']));
  }
  return problems;
}

/** A host, and the devices that it brings with it. */
export interface ScenarioHost {
  readonly host: HostOptions;
  readonly devices: readonly CapturedDevice[];
  readonly notices: readonly string[];
}

/** The host of a scenario, whose fields are checked; `directory` is what `from` is relative to. The errors of readCapturedMachine(). */
export function hostOf(fields: HostFields, directory: string): ScenarioHost {
  const { from, devices, ...said } = fields;
  if (from === undefined) return hostWith(said, undefined);
  return hostWith(said, readCapturedMachine(resolve(directory, from), { devices: devices !== false }));
}

/** A host of a machine that was captured, if there is one, and of what is said otherwise. */
export function hostWith(
  said: Omit<HostFields, 'from' | 'devices'>,
  machine: CapturedMachine | undefined,
): ScenarioHost {
  const memoryMap = machine?.memory ?? (said.memoryMap && memoryMapOf(said.memoryMap));
  const nodes = memoryMap ? new Set(memoryMap.ranges.map(({ nid }) => nid)).size : (said.nodes ?? 1);
  const memory = memoryMap?.ranges.reduce((sum, { size }) => sum + size, 0) ?? said.memory ?? 0;
  const cmdlineRules =
    said.cmdlineRules ?? (machine !== undefined && said.cmdline === undefined ? 'kernel' : undefined);
  const cmdline = said.cmdline ?? machine?.cmdline ?? DEFAULT_CMDLINE;
  const host: HostOptions = {
    arch: said.arch,
    memory,
    nodes,
    ...(memoryMap && { memoryMap }),
    ...(said.guestMemory !== undefined && { guestMemory: said.guestMemory }),
    cpus: said.cpus ?? machine?.cpus ?? nodes * CPUS_PER_NODE,
    ...(said.kernelSize !== undefined && { kernelSize: said.kernelSize }),
    cmdline,
    ...(cmdlineRules && { cmdlineRules }),
    release: said.release ?? machine?.release ?? DEFAULT_RELEASE,
  };
  const warnings =
    cmdlineRules === 'kernel' ? parseCommandLine(cmdline, { mode: 'kernel', khoDefault: false }).warnings : [];
  return {
    host,
    devices: machine === undefined ? [] : capturedDevices(machine),
    notices: [...(machine?.notices ?? []), ...warnings],
  };
}

/** A memory map as a scenario's field has it: ends are inclusive there. */
export function memoryMapFields({ firmware, ranges, kernel, reserved }: HostMemoryMap): MemoryMapFields {
  const [ram, other] = FIRMWARE_TYPES;
  const taken = ({ address, size }: { address: number; size: number }) => ({ start: address, end: address + size - 1 });
  return {
    firmware: firmware.map(({ base, size, usable }) => ({
      start: base,
      end: base + size - 1,
      type: usable ? ram : other,
    })),
    nodes: ranges.map(({ base, size, nid }) => ({ node: nid, start: base, end: base + size - 1 })),
    ...(kernel && { kernel: taken(kernel) }),
    ...(reserved && { reserved: reserved.map(taken) }),
  };
}

function memoryMapOf({ firmware, nodes, kernel, reserved }: MemoryMapFields): HostMemoryMap {
  const range = ({ start, end }: { start: number; end: number }) => ({
    base: physicalAddress(start),
    size: end + 1 - start,
  });
  const taken = ({ start, end }: { start: number; end: number }) => ({
    address: physicalAddress(start),
    size: end + 1 - start,
  });
  return {
    firmware: firmware.map((entry) => ({ ...range(entry), usable: entry.type === FIRMWARE_TYPES[0] })),
    ranges: nodes.map((entry) => ({ ...range(entry), nid: entry.node })),
    ...(kernel && { kernel: taken(kernel) }),
    ...(reserved && { reserved: reserved.map(taken) }),
  };
}

/** What a captured machine comes to as a scenario's `host`: {@link hostOf} of it is the same machine. */
export function hostFieldsOf(machine: CapturedMachine, { guestMemory }: { guestMemory?: number | undefined } = {}) {
  const { arch, release, cpus, cmdline, memory } = machine;
  return {
    arch,
    ...(release !== undefined && { release }),
    ...(cpus !== undefined && { cpus }),
    ...(guestMemory !== undefined && { guestMemory: formatSize(guestMemory) }),
    cmdline,
    cmdlineRules: 'kernel' as const,
    memoryMap: memoryMapFields(memory),
  };
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  return value as Readonly<Record<string, unknown>>;
}
