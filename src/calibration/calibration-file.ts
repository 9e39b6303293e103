import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import type { Calibration } from '../coordinator/index.js';
import { KhoError } from '../errors.js';
import { machineName } from './calibrate.js';

const FILE_VERSION = 1;

const positive = z.number().nonnegative();
const costs = z.object({
  fixed: positive,
  perShard: positive,
  perByteSerialize: positive,
  perByteFinalize: positive,
  parallelism: z.number().min(1),
});
const schema = z.object({
  schemaVersion: z.literal(FILE_VERSION),
  calibrations: z.array(
    z.object({
      machine: z.string(),
      workers: z.number().int().positive(),
      date: z.string(),
      modes: z.object({ sequential: costs, hash: costs, subfdt: costs }),
    }),
  ),
});

/** Where the command keeps calibrations: below $XDG_CACHE_HOME, or ~/.cache. */
export function calibrationFile(environment: NodeJS.ProcessEnv = process.env): string {
  const cache = environment.XDG_CACHE_HOME;
  return join(cache === undefined || cache === '' ? join(homedir(), '.cache') : cache, 'khorus', 'calibration.json');
}

/** The calibration for this machine and so many workers, if the file has one. What cannot be read there is not there. */
export async function loadCalibration(workers: number, file: string): Promise<Calibration | undefined> {
  const machine = machineName();
  return (await readAll(file)).find((one) => one.machine === machine && one.workers === workers);
}

/** Keeps a calibration in place of an older one for the same. KHO_EIO if it cannot be written; then the file is as it was. */
export async function storeCalibration(calibration: Calibration, file: string): Promise<void> {
  const isOther = (one: Calibration): boolean =>
    one.machine !== calibration.machine || one.workers !== calibration.workers;
  const calibrations = [...(await readAll(file)).filter(isOther), calibration];
  const text = `${JSON.stringify({ schemaVersion: FILE_VERSION, calibrations }, null, 1)}\n`;
  const temporary = `${file}.${process.pid}`;
  try {
    // One by one: a recursive mkdir of Node's goes round for ever where there can be no directory, such as below /proc.
    for (const directory of [dirname(dirname(file)), dirname(file)]) await makeDirectory(directory);
    await writeFile(temporary, text);
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {}); // where there can be no file, there is none
    const reason = error instanceof Error ? error.message : String(error);
    throw new KhoError('KHO_EIO', `cannot keep the calibration: ${reason}`, { file });
  }
}

async function makeDirectory(directory: string): Promise<void> {
  try {
    await mkdir(directory);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  }
}

async function readAll(file: string): Promise<readonly Calibration[]> {
  try {
    return schema.parse(JSON.parse(await readFile(file, 'utf8'))).calibrations;
  } catch {
    return [];
  }
}
