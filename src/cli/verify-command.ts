import type { ProfileName } from '../abi/index.js';
import { digestedBytes, unbackedBytes } from '../coordinator/index.js';
import { formatBytes, plural } from '../report/index.js';
import { verifyDirectory } from '../run.js';
import { builtInDrivers } from './run-command.js';
import { EXIT_DONE, EXIT_FAILED, type Terminal } from './terminal.js';

export interface VerifyCommandOptions {
  readonly profile?: ProfileName;
}

/** `khorus verify`: checks what `run --out` wrote, and restores from it. */
export async function verifyOutput(
  directory: string,
  { profile }: VerifyCommandOptions,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  const result = await verifyDirectory(directory, { signal, drivers: builtInDrivers(), ...(profile && { profile }) });
  const { report, record, failures, notes } = result;
  const unverifiableBytes = record === undefined ? 0 : unbackedBytes(record);
  if (terminal.json) {
    const { timeline: _timeline, ...rest } = report ?? {};
    terminal.printJson({
      verified: failures.length === 0,
      failures,
      notes,
      ...(unverifiableBytes > 0 && { unverifiableBytes }),
      ...(report && { successor: rest }),
    });
    return failures.length === 0 ? EXIT_DONE : EXIT_FAILED;
  }
  for (const note of notes) terminal.say(`note: ${note}`);
  for (const { message, driver, instance } of failures) {
    const where = [driver, instance].filter((part) => part !== undefined && !message.includes(part)).join(' ');
    terminal.streams.stderr.write(`khorus: ${message}${where === '' ? '' : ` (${where})`}\n`);
  }
  if (failures.length > 0) return EXIT_FAILED;
  if (!terminal.quiet && report !== undefined) {
    const digests = record === undefined ? 'no digests compared' : 'all digests equal';
    // Not what was preserved less what is said to have no content: what has been compared.
    const objects = record?.ranges.length ?? report.preservedObjects;
    const bytes = record === undefined ? report.preservedBytes : digestedBytes(record);
    terminal.print(
      `verified: ${plural(report.restored.length, 'instance')} restored, ` +
        `${plural(objects, 'preserved object')} (${formatBytes(bytes)}), ${digests}`,
    );
    if (unverifiableBytes > 0) {
      const unbacked = plural(report.preservedObjects - objects, 'preserved object');
      terminal.print(`not verifiable: ${unbacked} of guest memory (${formatBytes(unverifiableBytes)}) without content`);
    }
  }
  return EXIT_DONE;
}
