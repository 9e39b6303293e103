import { type ChildProcess, fork } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { SerializedKhoError } from '../errors.js';
import { type ChaosKind, type ChaosScenario, chaosPlan, describePlan } from './chaos-plan.js';
import type { ChaosResult } from './chaos-run.js';
import type { ChaosStart } from './chaos-serve.js';

/** Milliseconds: a run that takes longer has hung, whatever it waits for. */
export const CHAOS_RUN_LIMIT_MS = 20_000;
/** Of what a process says before it dies, so much is kept. */
const LAST_WORDS = 2000;

export interface ChaosOptions {
  readonly seed: number;
  /** How many runs: those of index 0, 1, …; or the one of index `only`. */
  readonly runs: number;
  readonly only?: number;
  /** Default: random hosts with drivers made for it, and some built-in ones. */
  readonly scenario?: ChaosScenario;
  /** Processes at a time; default: one more than CPUs, for a run waits half of its time. */
  readonly jobs?: number;
  /** Milliseconds after which a run has hung; default {@link CHAOS_RUN_LIMIT_MS}. */
  readonly limit?: number;
  readonly signal?: AbortSignal;
  /** Called after each run. */
  readonly onRun?: (run: ChaosRunReport, done: number) => void;
  /** The module of the processes; tests have one that spoils its runs. */
  readonly process?: URL;
}

/** One run. */
export interface ChaosRunReport {
  readonly index: number;
  /** Absent for a run that hung, or whose process died. */
  readonly result?: ChaosResult;
  readonly violations: readonly string[];
  readonly hung: boolean;
  readonly plan: string;
}

/** All runs together. */
export interface ChaosSummary {
  readonly runs: number;
  readonly handedOver: number;
  readonly rolledBack: number;
  /** Runs in which something did not hold. */
  readonly violations: number;
  readonly leakedPages: number;
  readonly hung: number;
  /** In how many runs each kind struck, and how many of them were handed over. */
  readonly kinds: ReadonlyMap<ChaosKind, { readonly struck: number; readonly handedOver: number }>;
  /** The runs that failed. */
  readonly failed: readonly ChaosRunReport[];
}

/** Makes the runs, spread over processes. Rejects with the reason of an abort; a run that fails is in the summary. */
export async function chaos(options: ChaosOptions): Promise<ChaosSummary> {
  const { runs, only, jobs = availableParallelism() + 1, signal, onRun = () => {} } = options;
  signal?.throwIfAborted();
  const waiting = only === undefined ? Array.from({ length: runs }, (_, index) => index) : [only];
  waiting.reverse();
  const reports: ChaosRunReport[] = [];
  const workers = Array.from({ length: Math.min(jobs, waiting.length) }, () => new ChaosWorker(options));
  const end = (): void => {
    for (const worker of workers) worker.end();
  };
  signal?.addEventListener('abort', end);
  try {
    await Promise.all(
      workers.map(async (worker) => {
        for (let index = waiting.pop(); index !== undefined; index = waiting.pop()) {
          const report = await worker.run(index);
          signal?.throwIfAborted();
          reports.push(report);
          onRun(report, reports.length);
        }
      }),
    );
  } finally {
    signal?.removeEventListener('abort', end);
    end();
  }
  return summaryOf(reports);
}

/** A process, and the next one when it dies. */
class ChaosWorker {
  readonly #options: ChaosOptions;
  #child: ChildProcess | undefined;
  #words = '';

  constructor(options: ChaosOptions) {
    this.#options = options;
  }

  async run(index: number): Promise<ChaosRunReport> {
    const child = this.#child ?? this.#start();
    const { seed, scenario } = this.#options;
    const base = { index, hung: false, plan: describePlan(chaosPlan(seed, index, scenario)) };
    const answer = await this.#ask(child, index);
    if (answer === 'hung') return { ...base, hung: true, violations: ['it neither ended nor failed'] };
    if (typeof answer === 'string') return { ...base, violations: [answer] };
    return { ...base, result: answer, violations: answer.violations };
  }

  end(): void {
    this.#child?.kill('SIGKILL');
    this.#child = undefined;
  }

  /** The result; else what became of it. */
  async #ask(child: ChildProcess, index: number): Promise<ChaosResult | string> {
    const listening = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<ChaosResult | string>((resolve) => {
        const listen = <T>(event: string, listener: (value: T, more: unknown) => void): void => {
          child.on(event, listener);
          listening.signal.addEventListener('abort', () => child.off(event, listener));
        };
        listen('message', ({ result, error }: { result?: ChaosResult; error?: SerializedKhoError }) => {
          resolve(result ?? `the harness failed: ${error?.stack ?? ''}`);
        });
        listen('exit', (code: number | null, name) => {
          this.#child = undefined;
          resolve(`the process ended (${String(name ?? code)}): ${this.#words.trim()}`);
        });
        timer = setTimeout(() => {
          this.end();
          resolve('hung');
        }, this.#options.limit ?? CHAOS_RUN_LIMIT_MS);
        child.send(index);
      });
    } finally {
      clearTimeout(timer);
      listening.abort();
    }
  }

  #start(): ChildProcess {
    const { seed, scenario, process: module = new URL('./chaos-process.js', import.meta.url) } = this.#options;
    const child = fork(fileURLToPath(module), {
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      execArgv: [],
    });
    this.#words = '';
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#words = (this.#words + chunk.toString()).slice(-LAST_WORDS);
    });
    child.send({ seed, ...(scenario && { scenario }) } satisfies ChaosStart);
    this.#child = child;
    return child;
  }
}

function summaryOf(reports: readonly ChaosRunReport[]): ChaosSummary {
  const kinds = new Map<ChaosKind, { struck: number; handedOver: number }>();
  for (const { result } of reports) {
    for (const kind of new Set(result?.kinds)) {
      const counts = kinds.get(kind) ?? { struck: 0, handedOver: 0 };
      kinds.set(kind, counts);
      counts.struck++;
      if (result?.state === 'handed over') counts.handedOver++;
    }
  }
  const count = (test: (report: ChaosRunReport) => boolean): number => reports.filter(test).length;
  return {
    runs: reports.length,
    handedOver: count(({ result }) => result?.state === 'handed over'),
    rolledBack: count(({ result }) => result?.state === 'rolled back'),
    violations: count(({ violations, hung }) => violations.length > 0 && !hung),
    leakedPages: reports.reduce((sum, { result }) => sum + Math.abs(result?.leakedPages ?? 0), 0),
    hung: count(({ hung }) => hung),
    kinds,
    failed: reports.filter(({ violations }) => violations.length > 0).sort((a, b) => a.index - b.index),
  };
}

/** The last line, by which others judge. */
export function summaryLine({ runs, handedOver, rolledBack, violations, leakedPages, hung }: ChaosSummary): string {
  return `runs ${runs}, handed over ${handedOver}, rolled back ${rolledBack}, violations ${violations}, leaked pages ${leakedPages}, hung ${hung}`;
}
