import { KhoError, type SerializedKhoError } from '../errors.js';

/**
 * The phases of a handover, in order. The blackout is freeze to restore, with `shutdown` before if that is what triggers it;
 * `prepare`, `update` and `finish` are brownout: the machines run. So is what is frozen early (`early freeze`), but for the
 * drivers concerned. `cancel` and `snapshot` are outside of the blackout too.
 *
 * Phases do not overlap, callbacks do: where shutdown is the trigger, drivers freeze and serialize while others still shut
 * down, and the phase `serialize` is what is left when the last one is down.
 */
export const PHASES = [
  'prepare',
  'update',
  'early freeze',
  'shutdown',
  'freeze',
  'serialize',
  'finalize',
  'jump',
  'snapshot',
  'boot',
  'restore',
  'finish',
  'cancel',
] as const;
export type Phase = (typeof PHASES)[number];

/** The phases whose sum is the blackout. */
export const BLACKOUT_PHASES = ['shutdown', 'freeze', 'serialize', 'finalize', 'jump', 'boot', 'restore'] as const;

/** The steps of prepare in which a kernel is loaded: kexec_file_load(), which must not run in the blackout. */
export const KEXEC_LOAD_STEPS = ['read the kernel', 'load the kernel'] as const;

/** One callback, or one step of the coordinator's own. Times are milliseconds since the run began. */
export interface TimelineSpan {
  readonly phase: Phase;
  /** The driver; for steps of the coordinator, what it did (`render netdevsim`, `root FDT`) is in `step` instead. */
  readonly driver?: string;
  readonly instance?: string;
  readonly shard?: number;
  readonly step?: string;
  /** Which thread ran it: an index of {@link Timeline.threads}. */
  readonly thread: number;
  /** When it could have begun; from here to `start` it waited for a thread. */
  readonly queued: number;
  readonly start: number;
  readonly end: number;
}

/** A phase as a whole, on the clock of the thread that led it. */
export interface PhaseSpan {
  readonly phase: Phase;
  readonly start: number;
  readonly end: number;
}

export interface TimelineThread {
  readonly role: 'main' | 'worker' | 'host' | 'successor';
  /** Node's thread id, unique in its process. */
  readonly threadId: number;
  /** For a host: the driver that lives there. */
  readonly driver?: string;
}

/** Everything that happened, and when: part of run.json, and what the reports are made from. */
export interface Timeline {
  readonly threads: readonly TimelineThread[];
  readonly phases: readonly PhaseSpan[];
  readonly spans: readonly TimelineSpan[];
}

/** Who wants to know of phases as they happen. */
export interface PhaseObserver {
  phaseStarted(phase: Phase, at: number): void;
  phaseEnded(phase: Phase, start: number, end: number, error?: SerializedKhoError): void;
}

/** A phase that has begun. */
export interface PhaseUnderWay {
  /** Ends it, once; returns when. */
  end(error?: unknown): number;
}

/** Collects a {@link Timeline} in the main thread. */
export class TimelineRecorder {
  readonly #epoch: bigint;
  readonly #observer: PhaseObserver | undefined;
  readonly #threads: TimelineThread[] = [];
  readonly #threadIndex = new Map<string, number>();
  readonly #phases: PhaseSpan[] = [];
  readonly #spans: TimelineSpan[] = [];
  #later: (() => Iterable<TimelineSpan>)[] = [];

  /** `epoch` is process.hrtime.bigint() at the start of the run: one clock for all threads of the machine. */
  constructor(epoch: bigint, observer?: PhaseObserver) {
    this.#epoch = epoch;
    this.#observer = observer;
  }

  /** Milliseconds since the run began. */
  now(): number {
    return Number(process.hrtime.bigint() - this.#epoch) / 1e6;
  }

  /** The index of a thread, which is added when it is met for the first time. */
  thread(thread: TimelineThread): number {
    const key = `${thread.role} ${thread.threadId}`;
    let index = this.#threadIndex.get(key);
    if (index === undefined) {
      index = this.#threads.push(thread) - 1;
      this.#threadIndex.set(key, index);
    }
    return index;
  }

  add(span: TimelineSpan): void {
    this.#spans.push(span);
  }

  /** Spans that are made when somebody looks at the timeline: the blackout has no time for an object per callback. */
  addLater(make: () => Iterable<TimelineSpan>): void {
    this.#later.push(make);
  }

  /** Begins a phase, now or where another one has ended. */
  startPhase(phase: Phase, start = this.now()): PhaseUnderWay {
    this.#observer?.phaseStarted(phase, start);
    return {
      end: (error) => {
        const end = this.now();
        this.#phases.push({ phase, start, end });
        this.#observer?.phaseEnded(phase, start, end, error === undefined ? undefined : KhoError.from(error).toJSON());
        return end;
      },
    };
  }

  /** Runs `work` as a phase; the phase is recorded even if it fails. */
  async phase<T>(phase: Phase, work: () => Promise<T> | T): Promise<T> {
    const underWay = this.startPhase(phase);
    try {
      const result = await work();
      underWay.end();
      return result;
    } catch (error) {
      underWay.end(error);
      throw error;
    }
  }

  /** Runs one step of the main thread's own. */
  step<T>(phase: Phase, step: string, work: () => T): T {
    const start = this.now();
    try {
      return work();
    } finally {
      this.#addStep(phase, step, start);
    }
  }

  /** The same for a step that waits, such as for a file. */
  async stepAsync<T>(phase: Phase, step: string, work: () => Promise<T>): Promise<T> {
    const start = this.now();
    try {
      return await work();
    } finally {
      this.#addStep(phase, step, start);
    }
  }

  #addStep(phase: Phase, step: string, start: number): void {
    const thread = this.thread({ role: 'main', threadId: 0 });
    this.#spans.push({ phase, step, thread, queued: start, start, end: this.now() });
  }

  /** Adds what another process measured, shifted so that it begins where this clock is at `offset`. */
  append(other: Timeline, offset: number): void {
    const threads = other.threads.map((thread) => this.thread(thread));
    const shift = <T extends { start: number; end: number }>(span: T): T => ({
      ...span,
      start: span.start + offset,
      end: span.end + offset,
    });
    for (const phase of other.phases) this.#phases.push(shift(phase));
    for (const span of other.spans) {
      this.#spans.push({ ...shift(span), queued: span.queued + offset, thread: threads[span.thread] ?? 0 });
    }
  }

  get timeline(): Timeline {
    for (const make of this.#later) for (const span of make()) this.#spans.push(span);
    this.#later = [];
    return { threads: [...this.#threads], phases: [...this.#phases], spans: [...this.#spans] };
  }
}

/** How long a phase took, in milliseconds; 0 if it did not happen. */
export function phaseDuration(timeline: Timeline, phase: Phase): number {
  return timeline.phases.reduce((sum, span) => (span.phase === phase ? sum + (span.end - span.start) : sum), 0);
}

/** The blackout: the sum of its phases, in milliseconds. */
export function blackoutDuration(timeline: Timeline): number {
  return BLACKOUT_PHASES.reduce((sum, phase) => sum + phaseDuration(timeline, phase), 0);
}
