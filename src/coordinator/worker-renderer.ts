import { KhoError } from '../errors.js';
import type { RenderedBlob } from '../hashstage/index.js';
import { PAGE_SIZE } from '../memblock/index.js';
import type { RunnerLane } from './phase-runner.js';
import type { RegisteredDriver } from './registry.js';
import type { Renderer } from './renderer.js';
import type { BlobRoom } from './reservations.js';
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

  async render(driver: RegisteredDriver, { address, pages }: BlobRoom): Promise<RenderedBlob> {
    const { runner, role } = this.#lane;
    const room = pages * PAGE_SIZE;
    const answer = await runner.run({ kind: 'render', runId: this.#runId, driver: driver.index, address, room });
    if (answer.failure !== undefined) throw KhoError.from(answer.failure.error);
    const [start = 0, end = 0] = answer.spans;
    const thread = this.#recorder.thread({ role, threadId: answer.threadId });
    this.#recorder.add({ phase: 'finalize', step: `render ${driver.name}`, thread, queued: start, start, end });
    return answer.values[0] as RenderedBlob;
  }
}
