import { availableParallelism } from 'node:os';
import { calibrate, calibrationFile, loadCalibration, storeCalibration } from '../calibration/index.js';
import { type Calibration, chooseMode, type HandoverLoad, type ModeCosts } from '../coordinator/index.js';
import { KhoError } from '../errors.js';
import { type Column, columns } from '../report/index.js';
import { MODES } from '../workers/index.js';
import { EXIT_DONE, type Terminal } from './terminal.js';

const COLUMNS: readonly Column[] = [
  { heading: 'mode', align: 'left' },
  ...['fixed', 'a shard', 'a KiB, serialize', 'a KiB, finalize', 'threads count as'].map(
    (heading): Column => ({ heading, align: 'right' }),
  ),
];
/** Handovers for which the table says what `auto` would choose: bytes of FDT, in shards of 16 KiB, and work. */
const EXAMPLE_BYTES = [2 ** 16, 2 ** 20, 2 ** 24];
const EXAMPLE_WORK = [0, 1000, 10_000, 100_000];
const EXAMPLE_SHARD = 2 ** 14;

/** `khorus calibrate`: measures what the modes cost here, keeps it for `--mode auto`, and says what it comes to. */
export async function calibrateMachine(
  { workers = availableParallelism() }: { readonly workers?: number },
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  const calibration = await measure(workers, terminal, signal);
  const file = calibrationFile();
  if (terminal.json) terminal.printJson({ calibration, file });
  else if (!terminal.quiet) for (const line of calibrationLines(calibration)) terminal.print(line);
  await storeCalibration(calibration, file);
  if (!terminal.json && !terminal.quiet) terminal.print(`kept in ${file}`);
  return EXIT_DONE;
}

/** What `--mode auto` decides by: what is kept for this machine, or measured now and kept. */
export async function calibrationFor(workers: number, terminal: Terminal, signal: AbortSignal): Promise<Calibration> {
  const file = calibrationFile();
  const kept = await loadCalibration(workers, file);
  if (kept !== undefined) return kept;
  const calibration = await measure(workers, terminal, signal);
  try {
    await storeCalibration(calibration, file);
  } catch (error) {
    // A run is worth more than a file: it can be measured again.
    terminal.say(KhoError.from(error).message);
  }
  return calibration;
}

async function measure(workers: number, terminal: Terminal, signal: AbortSignal): Promise<Calibration> {
  terminal.say(`measuring what the modes cost on this machine with ${workers} workers, once; it takes a few seconds`);
  return await calibrate({ workers, signal });
}

function calibrationLines({ machine, workers, date, modes }: Calibration): string[] {
  const rows = Object.entries(modes).map(([mode, costs]) => [mode, ...cells(costs)]);
  const choices = EXAMPLE_BYTES.flatMap((bytes) =>
    EXAMPLE_WORK.map((work) => {
      const shards = bytes / EXAMPLE_SHARD;
      const load: HandoverLoad = { bytes, shards, largestShare: 1 / shards, work, source: 'declared' };
      const { mode } = chooseMode({ machine, workers, date, modes }, load, MODES);
      return [`${bytes / 1024} KiB in ${shards} shards`, microseconds(work), mode];
    }),
  );
  return [
    `${machine}; ${workers} workers; measured ${date}`,
    '',
    ...columns(COLUMNS, rows),
    '',
    ...columns(
      [
        { heading: 'a handover of', align: 'left' },
        { heading: 'and work of', align: 'right' },
        { heading: 'auto takes', align: 'left' },
      ],
      choices,
    ),
    '',
  ];
}

function cells({ fixed, perShard, perByteSerialize, perByteFinalize, parallelism }: ModeCosts): string[] {
  return [
    microseconds(fixed),
    microseconds(perShard),
    microseconds(perByteSerialize * 1024),
    microseconds(perByteFinalize * 1024),
    parallelism.toFixed(2),
  ];
}

function microseconds(value: number): string {
  return value < 1000 ? `${value.toFixed(value < 10 ? 2 : 0)} us` : `${(value / 1000).toFixed(1)} ms`;
}
