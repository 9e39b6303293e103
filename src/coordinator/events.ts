import { channel, tracingChannel } from 'node:diagnostics_channel';
import { EventEmitter } from 'node:events';
import type { SerializedKhoError } from '../errors.js';
import type { TaskPhase } from '../workers/index.js';
import type { LifecycleState } from './lifecycle.js';
import type { Registry } from './registry.js';
import type { RollbackReport } from './rollback-report.js';
import type { Phase } from './timeline.js';
import type { WorkGroup } from './work-group.js';

/** What a coordinator tells, by name. Times are milliseconds since the run began. */
export interface HandoverEventMap {
  /** The state machine has moved. */
  state: [event: { readonly from: LifecycleState; readonly to: LifecycleState }];
  'phase-start': [event: { readonly phase: Phase; readonly at: number }];
  'phase-end': [
    event: { readonly phase: Phase; readonly start: number; readonly end: number; readonly error?: SerializedKhoError },
  ];
  /** All callbacks of a driver in a phase have ended, well or not. `end` is when the main thread heard of it. */
  driver: [
    event: {
      readonly driver: string;
      readonly phase: TaskPhase;
      readonly callbacks: number;
      readonly start: number;
      readonly end: number;
    },
  ];
  'rolled-back': [report: RollbackReport];
}

const phases = tracingChannel('khorus:phase');
const drivers = channel('khorus:driver');
const states = channel('khorus:state');
const rollbacks = channel('khorus:rolled-back');

/**
 * Events for embedders: typed listeners, and the same as diagnostics channels for tools that do not hold the coordinator:
 * `khorus:state`, `khorus:driver`, `khorus:rolled-back`, and `khorus:phase` as a tracing channel (`start`, `end`, `error`).
 * With marks, the phases and drivers are measures of Node's performance timeline (`khorus serialize`, `khorus serialize
 * netdevsim`), whose buffer is the embedder's to clear.
 *
 * Listeners run on the main thread between the callbacks' messages: in the blackout they cost what they take. One that
 * throws ends up as an uncaught exception, as a channel's subscriber does; the handover goes on.
 */
export class HandoverEvents {
  readonly #emitter = new EventEmitter<HandoverEventMap>();
  readonly #marks: boolean;
  /** performance.now() at the start of the run. */
  #epoch = 0;

  constructor(marks = false) {
    this.#marks = marks;
  }

  on<Name extends keyof HandoverEventMap>(name: Name, listener: (...event: HandoverEventMap[Name]) => void): void {
    // @ts-expect-error -- the emitter's own overloads cannot follow a generic name
    this.#emitter.on(name, listener);
  }

  off<Name extends keyof HandoverEventMap>(name: Name, listener: (...event: HandoverEventMap[Name]) => void): void {
    // @ts-expect-error -- as above
    this.#emitter.off(name, listener);
  }

  /** A run begins: its times count from now. */
  begin(): void {
    this.#epoch = performance.now();
  }

  stateChanged(from: LifecycleState, to: LifecycleState): void {
    this.#emit('state', { from, to });
    if (states.hasSubscribers) states.publish({ from, to });
  }

  phaseStarted(phase: Phase, at: number): void {
    this.#emit('phase-start', { phase, at });
    if (phases.start.hasSubscribers) phases.start.publish({ phase, at });
  }

  phaseEnded(phase: Phase, start: number, end: number, error?: SerializedKhoError): void {
    const event = { phase, start, end, ...(error && { error }) };
    this.#emit('phase-end', event);
    if (error !== undefined && phases.error.hasSubscribers) phases.error.publish(event);
    if (phases.end.hasSubscribers) phases.end.publish(event);
    this.#measure(`khorus ${phase}`, start, end, error === undefined ? {} : { code: error.code });
  }

  driversDone({ steps, phase, queued: start }: WorkGroup, registry: Registry, end: number): void {
    if (!this.#marks && !drivers.hasSubscribers && this.#emitter.listenerCount('driver') === 0) return;
    for (const step of steps) {
      if (step.items.length === 0) continue;
      const driver = registry.drivers[step.driver]?.name ?? '';
      const event = { driver, phase, callbacks: step.items.length, start, end };
      this.#emit('driver', event);
      if (drivers.hasSubscribers) drivers.publish(event);
      this.#measure(`khorus ${phase} ${driver}`, start, end, { callbacks: step.items.length });
    }
  }

  rolledBack(report: RollbackReport): void {
    this.#emit('rolled-back', report);
    if (rollbacks.hasSubscribers) rollbacks.publish(report);
  }

  #emit<Name extends keyof HandoverEventMap>(name: Name, ...event: HandoverEventMap[Name]): void {
    for (const listener of this.#emitter.listeners(name)) {
      try {
        (listener as (...args: HandoverEventMap[Name]) => void)(...event);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  #measure(name: string, start: number, end: number, detail: object): void {
    if (this.#marks) performance.measure(name, { start: this.#epoch + start, end: this.#epoch + end, detail });
  }
}
