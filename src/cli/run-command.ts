import { fileURLToPath } from 'node:url';
import { explainChoice, lateWriteText, overruns } from '../coordinator/index.js';
import { BUILTIN_DRIVERS } from '../drivers/builtin.js';
import { KhoError } from '../errors.js';
import { blackoutReport, overrunSentence, runSummary, runSummaryLines } from '../report/index.js';
import { runHandover } from '../run.js';
import type { DriverModule } from '../workers/index.js';
import { calibrationFor } from './calibrate-command.js';
import { type KexecFlags, kexecPlan } from './kexec-command.js';
import { checkTarget, writeDirectory } from './output-directory.js';
import { Progress } from './progress.js';
import { loadScenario, type PlanOverrides, planOf } from './scenario.js';
import { EXIT_DONE, EXIT_FAILED, type Terminal } from './terminal.js';

/** The scenario that runs when none is named. */
const DEFAULT_SCENARIO = fileURLToPath(new URL('../../scenarios/host.yaml', import.meta.url));

export interface RunCommandOptions extends PlanOverrides, KexecFlags {
  readonly out?: string;
  readonly force?: boolean;
}

/** The built-in drivers as modules. */
export function builtInDrivers(): DriverModule[] {
  return [...BUILTIN_DRIVERS].map(([origin, url]) => ({ origin, url }));
}

/** `khorus run`: hands a scenario's host over and restores it. */
export async function runScenario(
  scenarioPath: string | undefined,
  options: RunCommandOptions,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  const scenario = await loadScenario(scenarioPath ?? DEFAULT_SCENARIO, { builtIn: builtInDrivers(), signal });
  for (const notice of scenario.notices ?? []) terminal.say(`khorus: ${notice}`);
  const kexec = kexecPlan(options, scenario.host.cmdline);
  const planned = planOf(scenario, options);
  const { out, force = false } = options;
  if (out !== undefined) await checkTarget(out, { force });
  const calibration = planned.mode === 'auto' ? await calibrationFor(planned.workers, terminal, signal) : undefined;
  const plan = { ...planned, ...(kexec && { kexec }), ...(calibration && { calibration }) };
  const progress = new Progress(terminal);
  try {
    const result = await runHandover(plan, { signal, onProgress: progress.report }).catch((thrown: unknown) => {
      const error = KhoError.from(thrown);
      // What the host cannot be is the scenario's matter; what a driver did wrong is told by its own name.
      throw error.details.field?.startsWith('host.') ? error.with({ file: scenario.file }) : error;
    });
    try {
      if (out !== undefined) {
        await writeDirectory(out, { force, signal }, (directory) => result.writeOutput(directory, { signal }));
      }
      progress[Symbol.dispose]();
      const { record, failures, overBudget } = result;
      const missed = overruns(record);
      const lateWrites = [...(record.lateWrites?.found ?? []), ...(record.successor?.lateWrites ?? [])];
      const reported = record.lateWrites?.policy === 'report' ? lateWrites : []; // else they are among the failures
      const refused = overBudget && plan.budget?.onOverrun === 'cancel';
      if (terminal.json) {
        const { drivers, instances, restoredBytes, unverifiableBytes } = runSummary(record);
        terminal.printJson({
          outcome: failures.length === 0 ? 'handed-over' : 'failed',
          overBudget,
          overruns: missed,
          mode: record.mode,
          ...(record.modeChoice && { modeChoice: record.modeChoice }),
          blackout: blackoutReport(record),
          drivers,
          instances,
          restoredBytes,
          ...(unverifiableBytes > 0 && { unverifiableBytes }),
          failures,
          ...(lateWrites.length > 0 && { lateWrites }),
          ...(out === undefined ? {} : { out }),
        });
      } else {
        if (!terminal.quiet) for (const line of runSummaryLines(record)) terminal.print(line);
        if (!terminal.quiet && record.modeChoice) terminal.print(explainChoice(record.modeChoice));
        for (const { message } of record.shutdownFailures ?? []) {
          terminal.streams.stderr.write(`khorus: shutdown failed and was passed over: ${message}\n`);
        }
        for (const late of reported) terminal.streams.stderr.write(`khorus: ${lateWriteText(late)}\n`);
        for (const overrun of missed) terminal.streams.stderr.write(`khorus: ${overrunSentence(overrun, refused)}\n`);
        for (const { message, driver, instance } of failures) {
          const where = [driver, instance].filter((part) => part !== undefined && !message.includes(part)).join(' ');
          terminal.streams.stderr.write(`khorus: ${message}${where === '' ? '' : ` (${where})`}\n`);
        }
      }
      return failures.length > 0 || refused ? EXIT_FAILED : EXIT_DONE;
    } finally {
      await result[Symbol.asyncDispose]();
    }
  } finally {
    progress[Symbol.dispose]();
  }
}
