import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ProfileName } from './abi/index.js';
import {
  BLACKOUT_PHASES,
  Coordinator,
  compareStates,
  type FailureRecord,
  failureOf,
  type Handover,
  Host,
  imageSizeOf,
  overruns,
  type ProgressEvent,
  type RunPlan,
  type RunRecord,
  readRecord,
  restoreFailures,
  type SuccessorReport,
  TimelineRecorder,
  unbackedMemoryOf,
} from './coordinator/index.js';
import { KhoError } from './errors.js';
import { after, ImageMemory } from './memblock/index.js';
import {
  contradictions,
  type SuccessorInput,
  startSuccessor,
  verifyImage,
  verifyPreserved,
} from './successor/index.js';
import { makeTemporaryDirectory } from './temporary-directory.js';
import { Random } from './workers/index.js';

/** How many bytes of a `reserve_mem` area are made in one step. */
const FILL_STEP = 2 ** 16;

export interface RunOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (event: ProgressEvent) => void;
  /** False to stop at the jump; default true. */
  readonly successor?: boolean;
}

/** What came of a run; it holds the host's memory until it is disposed of. */
export interface RunResult extends AsyncDisposable {
  readonly record: RunRecord;
  /** Drivers whose every instance was rebuilt with the state it had. */
  readonly restoredDrivers: number;
  readonly overBudget: boolean;
  /** Empty if everything was handed over and restored. */
  readonly failures: readonly FailureRecord[];
  /** Writes `kho/out/`, `ram.img`, `run.json` and, with a kernel, `boot.rom` into a directory that is there and empty. */
  writeOutput(directory: string, options?: { readonly signal?: AbortSignal }): Promise<void>;
}

/**
 * The whole of it: boots a host, hands it over, writes the memory image, starts a successor in a process of its own, and
 * compares what it restored with what was frozen.
 *
 * Rejects if the handover failed or was cancelled, after rolling back; what the successor finds wrong is in `failures`.
 */
export async function runHandover(plan: RunPlan, options: RunOptions = {}): Promise<RunResult> {
  const { signal, onProgress, successor = true } = options;
  const host = new Host(plan.host);
  const coordinator = new Coordinator(host, plan);
  let scratch: string | undefined;
  let handover: Handover | undefined;
  const dispose = async (): Promise<void> => {
    handover?.[Symbol.dispose]();
    await coordinator[Symbol.asyncDispose]();
    if (scratch !== undefined) await rm(scratch, { recursive: true, force: true });
  };
  try {
    fillReservedMemory(host, plan.seed);
    for (const registration of plan.drivers) coordinator.register(registration);
    const done = await coordinator.handover({ ...(signal && { signal }), ...(onProgress && { onProgress }) });
    handover = done;
    let record = done.record();
    const failures: FailureRecord[] = [];
    if (successor) {
      scratch = await makeTemporaryDirectory();
      const image = join(scratch, 'ram.img');
      await done.writeImage(image, signal);
      const { lateWrites: policy = 'cancel' } = plan;
      const digests = join(scratch, 'frozen');
      const looks = policy !== 'off' && (await done.writeFrozenDigests(digests));
      try {
        const input = {
          ...{ image, arch: plan.host.arch, drivers: done.modules, unbacked: done.unbackedMemory },
          ...(looks && { frozen: { file: digests, policy } }),
        };
        const report = await startSuccessor(input, {
          ...(signal && { signal }),
          ...(plan.callbackLimit !== undefined && { limit: plan.callbackLimit }),
        });
        failures.push(...restoreFailures(record.instances, report));
        record = { ...record, timeline: joinTimelines(record, report), successor: report };
      } catch (thrown) {
        signal?.throwIfAborted();
        failures.push(failureOf(KhoError.from(thrown)));
      }
    }
    const final = record;
    const overBudget = overruns(final).length > 0;
    return {
      record: final,
      restoredDrivers: restoredDrivers(final),
      overBudget,
      failures,
      async writeOutput(directory, { signal: abort } = {}) {
        await done.writeDebugfs(directory);
        if (done.bootRom !== undefined) await writeFile(join(directory, 'boot.rom'), done.bootRom);
        await done.writeImage(join(directory, 'ram.img'), abort);
        await writeFile(join(directory, 'run.json'), `${JSON.stringify(final, null, 1)}\n`);
      },
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

/**
 * What a kernel's users (a trace buffer, a log) wrote into the `reserve_mem` areas of a simulated host: bytes that depend
 * on the seed and the area's name alone.
 */
function fillReservedMemory({ memory, reserveMem }: Host, seed: number): void {
  for (const { name, address, size } of reserveMem) {
    const random = new Random(`${seed}/reserve_mem/${name}`);
    for (let at = 0; at < size; at += FILL_STEP) {
      memory.write(after(address, at), random.bytes(Math.min(FILL_STEP, size - at)));
    }
  }
}

/** What `verify` found. */
export interface VerifyResult {
  /** Absent if the image was not fit to be restored. */
  readonly report?: SuccessorReport;
  /** Absent without run.json. */
  readonly record?: RunRecord;
  readonly failures: readonly FailureRecord[];
  /** What could not be checked, and why. */
  readonly notes: readonly string[];
}

/**
 * Checks a directory that `run --out` wrote: every digest of run.json against the image, then a successor that restores
 * from it, and what it found preserved against what run.json lists. Without run.json the digests are left out (a note says so) and `drivers` must be given.
 * If root FDT or tracker are damaged, nothing is restored. KHO_ENOENT if there is no image.
 */
export async function verifyDirectory(
  directory: string,
  options: {
    readonly signal?: AbortSignal;
    readonly arch?: string;
    readonly drivers?: readonly { url: string; origin: string }[];
    /** Read the handover as a kernel does that speaks this profile alone; else it is told by what is there. */
    readonly profile?: ProfileName;
  } = {},
): Promise<VerifyResult> {
  const image = join(directory, 'ram.img');
  const record = await readRecord(join(directory, 'run.json'));
  const notes: string[] = [];
  const contradictory = record === undefined ? [] : contradictions(record);
  const failures: FailureRecord[] = [];
  const memory = ImageMemory.open(image);
  try {
    if (record === undefined) {
      notes.push('run.json is not there: digests of memory and of states were not compared');
    } else {
      memory.checkWhole(imageSizeOf(record));
      failures.push(...contradictory, ...verifyImage(memory, record));
    }
  } finally {
    memory.close();
  }
  const input: SuccessorInput = {
    image,
    arch: options.arch ?? record?.host.arch ?? 'x86_64',
    drivers: record?.drivers.map(({ module }) => module) ?? options.drivers ?? [],
    ...(record && { unbacked: unbackedMemoryOf(record), listPreserved: true }),
    ...(options.profile && { profile: options.profile }),
  };
  const fatal = failures.some(({ code, address }) => code === 'KHO_ETRACKER' || address === record?.root.address);
  if (fatal) {
    notes.push('root FDT or tracker are damaged: nothing was restored');
    // What a kernel would say of it, if it sees the damage at all.
    const seen = await trySuccessor({ ...input, drivers: [] }, options.signal);
    if (seen instanceof KhoError) failures.push({ code: seen.code, message: seen.message });
    return { ...(record && { record }), failures, notes };
  }
  const answer = await trySuccessor(input, options.signal);
  if (answer instanceof KhoError) {
    notes.push('the successor refused the handover: nothing was restored');
    failures.push({
      code: answer.code,
      message: answer.message,
      ...(answer.details.address === undefined ? {} : { address: answer.details.address }),
    });
    return { ...(record && { record }), failures, notes };
  }
  const { preserved = [], ...report } = answer;
  // Rows that contradict themselves may be anything: they are told already.
  if (record !== undefined && contradictory.length === 0) failures.push(...verifyPreserved(preserved, record));
  failures.push(...restoreFailures(record?.instances ?? [], report));
  return { report, ...(record && { record }), failures, notes };
}

async function trySuccessor(
  input: SuccessorInput,
  signal: AbortSignal | undefined,
): Promise<SuccessorReport | KhoError> {
  try {
    return await startSuccessor(input, signal && { signal });
  } catch (thrown) {
    signal?.throwIfAborted();
    return KhoError.from(thrown);
  }
}

/** How many drivers have all their instances back, with equal states. */
function restoredDrivers(record: RunRecord): number {
  const report = record.successor;
  if (report === undefined) return 0;
  const wrong = new Set([...compareStates(record.instances, report), ...report.failures].map(({ driver }) => driver));
  return record.drivers.filter(({ name }) => !wrong.has(name)).length;
}

/** One timeline of both sides. The time between them, writing the image and starting a process, is the simulation's. */
function joinTimelines(record: RunRecord, report: SuccessorReport): RunRecord['timeline'] {
  const recorder = new TimelineRecorder(process.hrtime.bigint());
  recorder.append(record.timeline, 0);
  const last = BLACKOUT_PHASES.map(
    (phase) => record.timeline.phases.findLast((span) => span.phase === phase)?.end ?? 0,
  );
  recorder.append(report.timeline, Math.max(...last));
  return recorder.timeline;
}
