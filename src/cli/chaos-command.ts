import { availableParallelism } from 'node:os';
import ora from 'ora';
import { chaos, chaosLines, chaosScenario } from '../testing/chaos-index.js';
import { builtInDrivers } from './run-command.js';
import { loadScenario, planOf } from './scenario.js';
import { EXIT_DONE, EXIT_FAILED, type Terminal } from './terminal.js';

/** Runs, unless it is said how many. */
export const DEFAULT_CHAOS_RUNS = 200;

export interface ChaosCommandOptions {
  readonly seed?: number;
  readonly runs?: number;
  readonly only?: number;
  readonly jobs?: number;
}

/**
 * `khorus chaos`: random faults at random points, in random hosts or a user's scenario; each run must end handed over or
 * rolled back, with nothing left behind.
 */
export async function runChaos(
  scenarioPath: string | undefined,
  { seed = 1, runs = DEFAULT_CHAOS_RUNS, only, jobs = availableParallelism() + 1 }: ChaosCommandOptions,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  const spinner = terminal.showsProgress ? ora({ text: 'chaos', discardStdin: false }).start() : undefined;
  try {
    const prepared =
      scenarioPath === undefined
        ? undefined
        : await chaosScenario(planOf(await loadScenario(scenarioPath, { builtIn: builtInDrivers(), signal })));
    const summary = await chaos({
      seed,
      runs,
      jobs,
      signal,
      ...prepared,
      ...(only !== undefined && { only }),
      onRun: ({ index, plan, result, violations }, done) => {
        if (spinner !== undefined) spinner.text = `chaos ${done}/${only === undefined ? runs : 1}`;
        if (!terminal.verbose) return;
        terminal.say([`run ${index}: ${result?.state ?? 'no end'}; ${plan}`, ...violations].join('\n  '));
      },
    });
    spinner?.stop();
    const repeat = (index: number): string =>
      scenarioPath === undefined
        ? `npm run chaos -- --seed ${seed} --only ${index}`
        : `khorus chaos ${scenarioPath} --seed ${seed} --only ${index}`;
    if (terminal.json) {
      const { kinds, failed, ...counts } = summary;
      terminal.printJson({
        seed,
        ...counts,
        kinds: Object.fromEntries(kinds),
        failed: failed.map(({ index, plan, violations, hung }) => ({
          index,
          plan,
          violations,
          hung,
          repeat: repeat(index),
        })),
      });
    } else if (!terminal.quiet) {
      for (const line of chaosLines(summary, repeat)) terminal.print(line);
    }
    const { violations, leakedPages, hung } = summary;
    return violations + leakedPages + hung === 0 ? EXIT_DONE : EXIT_FAILED;
  } finally {
    spinner?.stop();
  }
}
