import { KhoError } from '../errors.js';
import type { FdtFrame, RenderedFrame } from '../hashstage/index.js';
import type { RunnerLane } from './phase-runner.js';
import type { Renderer, RenderTarget } from './renderer.js';
import type { TimelineRecorder } from './timeline.js';

/** Mode `sequential`: the one thread that serialized writes the FDTs itself, one after another. */
export class WorkerRenderer implements Renderer {
  readonly #runId: string;
  readonly #lane: RunnerLane;
  readonly #recorder: TimelineRecorder;

  constructor(runId: string, lane: RunnerLane, recorder: TimelineRecorder) {
    this.#runId = runId;
    this.#lane = lane;
    this.#recorder = recorder;
  }

  async render(frame: FdtFrame, { address, size: room }: RenderTarget, what: string): Promise<RenderedFrame> {
    const { runner, role } = this.#lane;
    const answer = await runner.run({ kind: 'render', runId: this.#runId, frame, address, room });
    if (answer.failures[0] !== undefined) throw KhoError.from(answer.failures[0].error);
    const [start = 0, end = 0] = answer.spans;
    const thread = this.#recorder.thread({ role, threadId: answer.threadId });
    this.#recorder.add({ phase: 'finalize', step: `render ${what}`, thread, queued: start, start, end });
    return answer.values[0] as RenderedFrame;
  }
}
