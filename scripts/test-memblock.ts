/**
 * `npm run test:memblock -- --seed N --ops N`: random calls to khorus' memblock and to the kernel's own, compared after
 * each. The last line is `operations N, divergences N`; exit 0 only if there are none. docs/memblock.md says more.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { kernelMemblock } from '../test/memblock/differential/kernel-memblock.js';
import { KernelPeer } from '../test/memblock/differential/kernel-peer.js';
import { ModelPeer } from '../test/memblock/differential/peer.js';
import { runDifferential } from '../test/memblock/differential/run.js';

interface Options {
  readonly seed: number;
  readonly ops: number;
  readonly tree?: string;
}

function parseOptions(args: readonly string[]): Options {
  const whole = (text: string): number => {
    if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('It must be a whole number of at most 9 digits.');
    return Number(text);
  };
  const positive = (text: string): number => {
    if (whole(text) === 0) throw new InvalidArgumentError('It must be 1 or more.');
    return whole(text);
  };
  const program = new Command('npm run test:memblock --')
    .description("Compares khorus' memblock with the kernel's own mm/memblock.c, after each of many random calls.")
    .option('--seed <n>', 'of all that is random', whole, 1)
    .option('--ops <n>', 'calls to compare', positive, 1_000_000)
    .option('--tree <dir>', "an unpacked kernel source to take instead of Debian's")
    .allowExcessArguments(false)
    .exitOverride();
  program.parse([...args], { from: 'user' });
  return program.opts<Options>();
}

async function main(): Promise<number> {
  const { seed, ops, tree } = parseOptions(process.argv.slice(2));
  const abort = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => abort.abort(signal));
  const print = (line: string): void => void process.stdout.write(`${line}\n`);
  const directory = mkdtempSync(join(tmpdir(), 'khorus-memblock-'));
  try {
    const { program, version } = await kernelMemblock(directory, (text) => print(`kernel's memblock: ${text}`), tree);
    print(`Linux ${version}, seed ${seed}`);
    const peers = [new ModelPeer(), new KernelPeer(program, abort.signal)] as const;
    const { operations, divergences } = await runDifferential(peers, {
      seed,
      operations: ops,
      print,
      signal: abort.signal,
    });
    print(`operations ${operations}, divergences ${divergences}`);
    return divergences === 0 ? 0 : 1;
  } catch (error) {
    if (!abort.signal.aborted) throw error;
    print(`ended by ${abort.signal.reason}`);
    return abort.signal.reason === 'SIGINT' ? 130 : 143;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2; // commander has said why
  } else {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
    process.exitCode = 1;
  }
}
