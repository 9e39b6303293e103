import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { stringify } from 'yaml';
import type { RunRecord } from '#dist/coordinator/index.js';
import type { BootResult } from '#dist/kexec/index.js';
import { initramfs } from './cpio.js';
import type { KernelTestContext } from './kernel-test.js';
import { sessionLines } from './run-digests.js';

const COMMAND = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url));

/** A host of ours whose handover a real kernel is to take. */
export interface Shape {
  /** As a scenario spells it. */
  memory: string;
  nodes?: number;
  /** Default: by the kernel's rules. */
  scratch?: string;
  /** Size by name, or `SIZE:ALIGN`. */
  reserveMem?: Readonly<Record<string, string>>;
  drivers?: readonly Readonly<Record<string, unknown>>[];
  /** Sessions without a memfd: the run records nothing of them. */
  emptySessions?: readonly string[];
  seed?: number;
  /** More of the guest's command line. */
  guest?: string;
  /** False: the guest's command line does not ask for the areas of `reserveMem`. */
  revive?: boolean;
}

/** A run's directory, and what it recorded. */
export interface HandedOver {
  directory: string;
  /** What `khorus kexec` is to load; empty if the run has. */
  load: readonly string[];
  record: RunRecord;
}

export interface CommandEnd {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Runs the built command, as a person does. It is ended with this process. */
export async function khorus(args: readonly string[]): Promise<CommandEnd> {
  const program = ['--pdeathsig', 'TERM', process.execPath, COMMAND];
  const child = spawn('setpriv', [...program, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const end: CommandEnd = { status: null, stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    end.stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    end.stderr += text;
  });
  [end.status] = (await once(child, 'close')) as [number | null];
  return end;
}

/** `khorus run` of a shape. The kernel is loaded later, with an initramfs that knows the run's sessions and memfds. */
export async function handOver(context: KernelTestContext, shape: Shape): Promise<HandedOver> {
  const { scenario, cmdline } = writeScenario(context, shape);
  const out = join(context.directory, 'out');
  await khorusRun([scenario, '--out', out]);
  const record = readRecord(out);
  const initrd = writeInitrd(context, [...sessionLines(record), ...(shape.emptySessions ?? [])]);
  const load = ['--kernel', context.kernel.bzImage, '--initrd', initrd, '--cmdline', cmdline];
  return { directory: out, load, record };
}

/** `khorus run` of a shape with the kernel loaded by the run, so that nothing of ours reads the image before the kernel. */
export async function handOverLoaded(
  context: KernelTestContext,
  shape: Shape,
  sessions: readonly string[],
): Promise<HandedOver> {
  const { scenario, cmdline } = writeScenario(context, shape);
  const out = join(context.directory, 'out');
  const initrd = writeInitrd(context, sessions);
  const load = ['--kernel', context.kernel.bzImage, '--initrd', initrd, '--cmdline', cmdline];
  await khorusRun([scenario, '--out', out, ...load]);
  return { directory: out, load: [], record: readRecord(out) };
}

/** What `khorus kexec --qemu --json` prints. */
export interface BootDocument extends BootResult {
  arrived: boolean;
  console: string[];
}

/** `khorus kexec --qemu`: the exit status, and what came of the boot. */
export async function takeOver({
  directory,
  load,
}: HandedOver): Promise<{ status: number | null; boot: BootDocument }> {
  const { status, stdout, stderr } = await khorus(['kexec', directory, ...load, '--qemu', '--json']);
  if (!stdout.startsWith('{')) throw new Error(`khorus kexec (${status}): ${stderr}${stdout}`);
  const boot = JSON.parse(stdout);
  if (boot.console === undefined) throw new Error(`khorus kexec (${status}): ${stdout}`);
  return { status, boot };
}

function writeScenario({ directory }: KernelTestContext, shape: Shape): { scenario: string; cmdline: string } {
  const { memory, nodes = 1, scratch, reserveMem = {}, drivers = [], seed = 1, guest = '', revive = true } = shape;
  const words = ['kho=on liveupdate=on', ...(scratch === undefined ? [] : [`kho_scratch=${scratch}`])];
  const areas = Object.entries(reserveMem).map(([name, size]) =>
    size.includes(':') ? `reserve_mem=${size}:${name}` : `reserve_mem=${size}:4096:${name}`,
  );
  const kernelSize = '11M'; // a test kernel's; a distribution's would want more scratch than small machines have
  const host = { memory, nodes, cpus: nodes, kernelSize, cmdline: [...words, ...areas].join(' ') };
  const scenario = join(directory, 'scenario.yaml');
  writeFileSync(scenario, stringify({ host, seed, drivers }));
  const cmdline = [...words, ...(revive ? areas : []), 'console=ttyS0 acpi=off reboot=k panic=-1', guest]
    .join(' ')
    .trim();
  return { scenario, cmdline };
}

function writeInitrd({ directory, init }: KernelTestContext, sessions: readonly string[]): string {
  const initrd = join(directory, 'initrd');
  writeFileSync(initrd, initramfs({ init: readFileSync(init), 'khorus-sessions': sessions.join('\n') }));
  return initrd;
}

async function khorusRun(args: readonly string[]): Promise<void> {
  const { status, stderr } = await khorus(['run', ...args, '--quiet']);
  expect(`${status}: ${stderr}`).toBe('0: ');
}

function readRecord(directory: string): RunRecord {
  return JSON.parse(readFileSync(join(directory, 'run.json'), 'utf8'));
}
