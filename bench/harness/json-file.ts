import { renameSync, rmSync, writeFileSync } from 'node:fs';
import type { Environment } from './environment.js';
import type { SuiteResult } from './suite.js';

/** Raised when a field changes its meaning or is gone. */
const SCHEMA_VERSION = 1;

/** Writes everything that was measured, raw rounds too, under a temporary name first: a file that is there is whole. */
export function writeJson(file: string, environment: Environment, suites: readonly SuiteResult[]): void {
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    writeFileSync(temporary, `${JSON.stringify({ schemaVersion: SCHEMA_VERSION, environment, suites }, null, 1)}\n`);
    renameSync(temporary, file);
  } finally {
    rmSync(temporary, { force: true });
  }
}
