import { KhoError } from '../errors.js';
import type { RenderedFrame } from '../hashstage/index.js';
import type { Renderer, RenderJob } from './renderer.js';
import type { TimelineRecorder } from './timeline.js';
import type { RunnerLane } from './work-group.js';

/** Mode `sequential`: the one thread that serialized writes the FDTs itself, one after another. */
export class WorkerRenderer implements Renderer {
  stateBytes = 0;
  readonly #runId: string;
  readonly #lane: RunnerLane;
  readonly #recorder: TimelineRecorder;

  constructor(runId: string, lane: RunnerLane, recorder: TimelineRecorder) {
    this.#runId = runId;
    this.#lane = lane;
    this.#recorder = recorder;
  }

  async render(jobs: readonly RenderJob[]): Promise<readonly RenderedFrame[]> {
    const { runner, role } = this.#lane;
    const rooms = jobs.map(({ frame, target: { address, size } }) => ({ frame, address, room: size }));
    const answer = await runner.run({ kind: 'render', runId: this.#runId, jobs: rooms });
    const thread = this.#recorder.thread({ role, threadId: answer.threadId });
    for (const [index, { what }] of jobs.entries()) {
      const [start, end] = [answer.spans[index * 2], answer.spans[index * 2 + 1]];
      if (start === undefined || end === undefined) break;
      this.#recorder.add({ phase: 'finalize', step: `render ${what}`, thread, queued: start, start, end });
    }
    const [failure] = answer.failures;
    if (failure !== undefined) {
      const driver = jobs[failure.position]?.driver;
      throw KhoError.from(failure.error).with({ phase: 'finalize', ...(driver !== undefined && { driver }) });
    }
    const blobs = answer.values as RenderedFrame[];
    for (const { size } of blobs) this.stateBytes += size;
    return blobs;
  }
}
