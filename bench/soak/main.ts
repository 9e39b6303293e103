/** `npm run soak`: handovers one after another in one process; see docs/generations.md. Exit 1 if anything is amiss. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { PROFILES } from 'khorus/abi';
import { leftovers, startFileThreads, takeCensus } from './census.js';
import { Chain, type ChainPlan } from './chain.js';
import { type Allowance, judgeFlatness, SAMPLES_TO_JUDGE } from './flatness.js';

const MIB = 2 ** 20;
/** Resident memory jumps with the age of the pool and the allocators of its threads. */
const RSS: Allowance = { bytes: 16 * MIB, share: 0.05 };
const HEAP: Allowance = { bytes: MIB, share: 0.03 };
/** A line of figures for so many handovers. */
const LINE_EVERY = 20;

interface SoakOptions extends ChainPlan {
  readonly handovers: number;
}

function parseOptions(args: readonly string[]): SoakOptions {
  const whole = (text: string): number => {
    if (!/^\d{1,7}$/.test(text) || Number(text) < 1)
      throw new InvalidArgumentError('It must be a whole number, 1 or more.');
    return Number(text);
  };
  const program = new Command('npm run soak --')
    .description('Hands a host over again and again in one process: each successor is the next predecessor.')
    .option('--handovers <n>', 'how many', whole, 200)
    .addOption(
      new Option('--mode <mode>', 'how state is serialized').choices(['hash', 'sequential', 'subfdt']).default('hash'),
    )
    .addOption(
      new Option('--profile <profile>', 'the KHO ABI').choices(PROFILES.map(({ name }) => name)).default('kho-v4'),
    )
    .option('--workers <n>', 'threads of the pool', whole, 2)
    .option('--seed <n>', 'of all that is random', whole, 1)
    .addOption(new Option('--successor <place>', 'where to restore').choices(['here', 'process']).default('here'))
    .exitOverride();
  program.parse([...args], { from: 'user' });
  return program.opts<SoakOptions>();
}

type Print = (line: string) => void;

interface Samples {
  readonly rss: number[];
  readonly heap: number[];
}

/** Hands over again and again. Rejects with what went wrong. */
async function run(options: SoakOptions, print: Print, gc: () => void, samples: Samples): Promise<void> {
  await using chain = new Chain(options);
  for (let handover = 1; handover <= options.handovers; handover++) {
    await chain.next();
    gc();
    const usage = process.memoryUsage();
    samples.rss.push(usage.rss);
    samples.heap.push(usage.heapUsed);
    if (handover % LINE_EVERY !== 0 && handover !== options.handovers) continue;
    const { threads = '?', fds = '?', listeners, handles, temporary } = await takeCensus();
    const open = Object.values(handles).reduce((sum, count) => sum + count, 0);
    print(
      `handover ${String(handover).padStart(4)}  kexec count ${chain.kexecCount}  rss ${mib(usage.rss)}  heap ${mib(usage.heapUsed)}  ` +
        `threads ${threads}  fds ${fds}  listeners ${listeners}  handles ${open}  temporary files ${temporary}`,
    );
  }
}

/** Everything that is not as it should be; empty if all is well. */
async function soak(options: SoakOptions, print: Print): Promise<string[]> {
  const { gc } = globalThis;
  if (gc === undefined) throw new Error('memory can be judged only with --expose-gc: use npm run soak');
  const rss: number[] = [];
  const heap: number[] = [];
  await startFileThreads();
  const before = await takeCensus();
  const started = performance.now();
  await run(options, print, gc, { rss, heap });
  const seconds = (performance.now() - started) / 1000;
  print(`${seconds.toFixed(1)} s, ${((seconds / options.handovers) * 1000).toFixed(0)} ms a handover`);
  const problems = leftovers(before, await takeCensus());
  for (const [what, samples, allowance] of [['resident memory', rss, RSS] as const, ['heap', heap, HEAP] as const]) {
    const judged = judgeFlatness(samples, allowance);
    if (judged === undefined) {
      print(`${what}: not judged, fewer than ${SAMPLES_TO_JUDGE} handovers`);
      continue;
    }
    const change = judged.late - judged.early;
    const words = `${what}: median ${mib(judged.early)} in the second quarter, ${mib(judged.late)} in the last`;
    print(`${words} (${change < 0 ? '' : '+'}${mib(change)})`);
    if (!judged.flat) problems.push(`${what} grew by ${mib(change)}`);
  }
  return problems;
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`;
}

async function main(args: readonly string[]): Promise<number> {
  const print = (line: string): void => void process.stdout.write(`${line}\n`);
  let options: SoakOptions;
  try {
    options = parseOptions(args);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    throw error;
  }
  const { handovers, profile, mode, workers, successor } = options;
  print(`${handovers} handovers, profile ${profile}, mode ${mode}, ${workers} workers, successor ${successor}`);
  // A directory of its own: what is left in it is ours.
  const temporary = mkdtempSync(join(tmpdir(), 'khorus-soak-'));
  process.env.TMPDIR = temporary;
  let problems: string[];
  try {
    problems = await soak(options, print);
  } catch (error) {
    problems = [error instanceof Error ? error.message : String(error)];
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
  for (const problem of problems) print(`soak: ${problem}`);
  const memory = handovers < SAMPLES_TO_JUDGE ? 'memory not judged' : 'memory flat';
  const good = `kexec count right, no address moved, every state restored, nothing left, ${memory}`;
  print(problems.length === 0 ? `soak: ${handovers} handovers: ${good}` : `soak: FAILED, ${problems.length} problems`);
  return problems.length === 0 ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
