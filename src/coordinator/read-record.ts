import { readFile } from 'node:fs/promises';
import { KhoError } from '../errors.js';
import { RUN_RECORD_VERSION, type RunRecord } from './run-record.js';

/** run.json of a directory, or undefined if there is none. KHO_EINVAL if it is something else. */
export async function readRecord(file: string): Promise<RunRecord | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw new KhoError('KHO_EIO', `${file} cannot be read`, { file }, { cause: error });
  }
  try {
    const value: unknown = JSON.parse(text);
    if (
      typeof value === 'object' &&
      value !== null &&
      'schemaVersion' in value &&
      value.schemaVersion === RUN_RECORD_VERSION
    ) {
      return value as RunRecord;
    }
  } catch {
    // falls through: neither JSON nor ours
  }
  throw new KhoError('KHO_EINVAL', `${file} is not a run.json of schemaVersion ${RUN_RECORD_VERSION}`, { file });
}
