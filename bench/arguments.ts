import { Argument, Command, InvalidArgumentError } from 'commander';
import { didYouMean } from '#dist/cli/suggest.js';

export interface BenchArguments {
  /** Names of suites, in the order of `names`; all of them if none was given. */
  readonly suites: readonly string[];
  readonly json?: string;
  readonly rounds?: number;
  readonly quick: boolean;
  readonly list: boolean;
}

/** What `npm run bench` takes. Throws commander's CommanderError for what it does not understand, and for --help. */
export function parseArguments(
  args: readonly string[],
  names: readonly string[],
  write: { out: (text: string) => void; error: (text: string) => void },
): BenchArguments {
  const program = new Command('npm run bench --')
    .description(
      'Measures khorus beside its peers, in interleaved rounds. Speed is never a failure: see docs/bench.md.',
    )
    .addArgument(
      new Argument('[suite...]', `which suites; default: all of ${names.join(', ')}`).argParser(
        (name: string, before: string[] | undefined) => {
          if (!names.includes(name)) {
            throw new InvalidArgumentError(`There is no suite '${name}'${didYouMean(name, names)}.`);
          }
          return [...(before ?? []), name];
        },
      ),
    )
    .option('--json <file>', 'write everything that was measured, raw rounds too')
    .option('--rounds <n>', 'rounds of each comparison, instead of its own number', wholeNumber)
    .option('--quick', 'small sizes and few rounds: to see that it works', false)
    .option('--list', 'list the suites', false)
    .exitOverride()
    .showHelpAfterError('(npm run bench -- --help shows what there is)')
    .configureOutput({ writeOut: write.out, writeErr: write.error });
  program.parse([...args], { from: 'user' });
  const chosen: string[] = program.processedArgs[0] ?? [];
  const { json, rounds, quick, list } = program.opts<{
    json?: string;
    rounds?: number;
    quick: boolean;
    list: boolean;
  }>();
  return {
    suites: names.filter((name) => chosen.length === 0 || chosen.includes(name)),
    ...(json !== undefined && { json }),
    ...(rounds !== undefined && { rounds }),
    quick,
    list,
  };
}

const MAX_ROUNDS = 100_000;

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < 1 || value > MAX_ROUNDS) {
    throw new InvalidArgumentError(`Expected a whole number from 1 to ${MAX_ROUNDS}.`);
  }
  return value;
}
