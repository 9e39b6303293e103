/** `npm run bench`: runs the suites that were asked for and prints what they measured. docs/bench.md says how to read it. */
import { CommanderError } from 'commander';
import { columns } from '#dist/report/index.js';
import { type BenchArguments, parseArguments } from './arguments.js';
import { environment, environmentLines, machineState } from './harness/environment.js';
import { writeJson } from './harness/json-file.js';
import { MachineLoad } from './harness/machine-load.js';
import { comparisonLines, suiteLines } from './harness/report.js';
import { runSuite, type Suite, type SuiteResult } from './harness/suite.js';
import { SUITES } from './suites.js';

const EXIT_DONE = 0;
const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

const out = (text: string): void => void process.stdout.write(text);
const print = (lines: readonly string[]): void => out(`${lines.join('\n')}\n`);

async function main(args: readonly string[]): Promise<number> {
  let options: BenchArguments;
  try {
    const names = SUITES.map(({ name }) => name);
    options = parseArguments(args, names, { out, error: (text) => void process.stderr.write(text) });
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_DONE : EXIT_USAGE;
    throw error;
  }
  if (options.list) {
    const layout = [
      { heading: 'suite', align: 'left' },
      { heading: 'what it measures', align: 'left' },
    ] as const;
    print(
      columns(
        layout,
        SUITES.map(({ name, summary }) => [name, summary]),
      ),
    );
    return EXIT_DONE;
  }
  const load = new MachineLoad();
  const before = machineState(load);
  const results: SuiteResult[] = [];
  const write = (): void => {
    if (options.json !== undefined) writeJson(options.json, environment(before, machineState(load)), results);
  };
  try {
    write();
  } catch (error) {
    process.stderr.write(`bench: --json: ${error instanceof Error ? error.message : String(error)}\n`);
    return EXIT_USAGE;
  }
  for (const { name, load: loadSuite } of SUITES.filter((suite) => options.suites.includes(suite.name))) {
    print([`== ${name}`, '']);
    results.push(await measure(name, await loadSuite(), options, load));
    write(); // after each suite: an interrupted run has not measured in vain
  }
  print(environmentLines(environment(before, machineState(load))));
  return EXIT_DONE;
}

async function measure(name: string, suite: Suite, options: BenchArguments, load: MachineLoad): Promise<SuiteResult> {
  const result = await runSuite(name, suite, {
    quick: options.quick,
    rounds: options.rounds,
    readLoad: (variants) => load.read(variants),
    onProgress: showProgress,
    onComparison: (comparison) => {
      clearProgress();
      print([...comparisonLines(comparison), '']);
    },
  });
  print([...suiteLines(result), '']);
  return result;
}

/** One line on a terminal that is written over; nothing in a pipe. */
function showProgress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${text}`);
}

function clearProgress(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
}

// `npm run bench | head` is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) =>
  process.exit(error.code === 'EPIPE' ? EXIT_DONE : EXIT_FAILED),
);
try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  process.exitCode = EXIT_FAILED;
}
