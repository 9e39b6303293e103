import { KhoError } from '../errors.js';
import { Finalizer, type RenderedFrame, type Stage } from '../hashstage/index.js';
import { makeInPlace, type SharedPhysicalMemory } from '../memblock/index.js';
import type { Renderer, RenderJob } from './renderer.js';
import type { TimelineRecorder } from './timeline.js';

/** Mode `hash`: the stage becomes FDTs, on the main thread. */
export class StageRenderer implements Renderer {
  stateBytes = 0;
  readonly #memory: SharedPhysicalMemory;
  readonly #recorder: TimelineRecorder;
  readonly #finalizer: Finalizer;

  constructor(stage: Stage, memory: SharedPhysicalMemory, recorder: TimelineRecorder) {
    this.#memory = memory;
    this.#recorder = recorder;
    this.#finalizer = recorder.step('finalize', 'collect names', () => new Finalizer(stage));
  }

  render(jobs: readonly RenderJob[]): RenderedFrame[] {
    return jobs.map(({ frame, target, what, driver }) => {
      try {
        const blob = this.#recorder.step('finalize', `render ${what}`, () =>
          makeInPlace(this.#memory, target.address, target.size, (room) => this.#finalizer.renderFrame(frame, room)),
        );
        this.stateBytes += blob.size;
        return blob;
      } catch (error) {
        throw KhoError.from(error).with({ phase: 'finalize', ...(driver !== undefined && { driver }) });
      }
    });
  }
}
