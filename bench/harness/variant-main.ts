/** The file that a variant's process runs: sets the variant up, then measures it whenever it is asked to. */
import type { Measured, Samples } from './comparison.js';

export type Request =
  | { readonly kind: 'set-up'; readonly module: string; readonly parameters: unknown }
  | { readonly kind: 'measure' }
  | { readonly kind: 'notes' }
  | { readonly kind: 'cpu-time' };

export type Answer =
  | {
      readonly kind: 'done';
      readonly samples: Samples;
      readonly notes: readonly string[];
      readonly cpuTime: number;
    }
  | { readonly kind: 'failed'; readonly error: string };

interface VariantModule {
  readonly default: (parameters: unknown) => Measured | Promise<Measured>;
}

let measured: Measured | undefined;

async function answer(request: Request): Promise<Answer> {
  let samples: Samples = [];
  if (request.kind === 'set-up') {
    const { default: create } = (await import(request.module)) as VariantModule;
    measured = await create(request.parameters);
  }
  if (request.kind === 'measure') samples = (await measured?.measure()) ?? [];
  const { user, system } = process.cpuUsage();
  const notes = (request.kind === 'notes' && measured?.notes?.()) || [];
  return { kind: 'done', samples, notes, cpuTime: (user + system) / 1000 + (measured?.childCpuTime?.() ?? 0) };
}

process.on('message', (request: Request) => {
  answer(request)
    .catch((error: unknown): Answer => ({ kind: 'failed', error: textOf(error) }))
    .then((result) => process.send?.(result));
});
// The bench is gone.
process.on('disconnect', () => process.exit());

const textOf = (error: unknown): string => (error instanceof Error ? (error.stack ?? error.message) : String(error));
