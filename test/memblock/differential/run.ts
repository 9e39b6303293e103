import { compare, type Divergence, shrink } from './compare.js';
import { Generator } from './generate.js';
import type { Operation, Peer, Sequence } from './peer.js';

/** Operations sent to a peer at once. */
const BATCH = 20_000;
/** Divergences that are shrunk and printed; more are counted. */
const SHOWN = 3;
/** A line of progress for so many operations. */
const LINE_EVERY = 200_000;

export interface DifferentialOptions {
  readonly seed: number;
  /** How many, exactly. */
  readonly operations: number;
  readonly print: (line: string) => void;
  readonly signal?: AbortSignal;
}

/**
 * Runs random sequences on both peers and compares what each operation returned and left. A sequence in which they differ
 * counts once, and is over with its first difference: what follows would only be its consequence.
 */
export async function runDifferential(
  peers: readonly [Peer, Peer],
  { seed, operations: wanted, print, signal }: DifferentialOptions,
): Promise<{ operations: number; divergences: number }> {
  const generator = new Generator(seed);
  let operations = 0;
  let divergences = 0;
  while (operations < wanted) {
    signal?.throwIfAborted();
    const before = operations;
    const batch: Sequence[] = [];
    const end = Math.min(wanted, operations + BATCH);
    while (operations < end) {
      const sequence = generator.sequence(end - operations);
      batch.push(sequence);
      operations += sequence.operations.length;
    }
    for (const divergence of await compare(peers, batch)) {
      if (divergence === undefined) continue;
      divergences++;
      if (divergences > SHOWN) continue;
      for (const line of await describe(peers, await shrink(peers, divergence))) print(line);
    }
    if (Math.floor(before / LINE_EVERY) < Math.floor(operations / LINE_EVERY) && operations < wanted) {
      print(`${operations} operations, ${divergences} divergences so far`);
    }
  }
  return { operations, divergences };
}

/** The operations that lead to a divergence, and what both peers hold before and after the last of them. */
async function describe(peers: readonly [Peer, Peer], { sequence, index, said }: Divergence): Promise<string[]> {
  const { initialRegions, operations } = sequence;
  const arrays: Operation = { call: 'arrays', args: [] };
  const looks = [operations.slice(0, index), operations].map((calls) => ({
    initialRegions,
    operations: [...calls, arrays],
  }));
  const [ours, theirs] = await Promise.all(peers.map((peer) => peer.run(looks)));
  return [
    `divergence: arrays of ${initialRegions} regions at first, then`,
    ...operations.map(({ call, args }) => `  ${call}(${args.map(argumentText).join(', ')})`),
    `  before: ${theirs[0].at(-1)}`,
    `  khorus: ${said[0]}, ${ours[1].at(-1)}`,
    `  kernel: ${said[1]}, ${theirs[1].at(-1)}`,
  ];
}

function argumentText(value: number): string {
  return value > 9 ? `0x${value.toString(16)}` : String(value);
}
