import { KhoError } from '../errors.js';
import { type FdtFrame, Finalizer, type RenderedFrame, type Stage } from '../hashstage/index.js';
import type { SharedPhysicalMemory } from '../memblock/index.js';
import type { Renderer, RenderJob, RenderTarget } from './renderer.js';
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
        const blob = this.#recorder.step('finalize', `render ${what}`, () => this.#renderInto(frame, target));
        this.stateBytes += blob.size;
        return blob;
      } catch (error) {
        throw KhoError.from(error).with({ phase: 'finalize', ...(driver !== undefined && { driver }) });
      }
    });
  }

  /** A blob may lie across two segments of memory: then it is made elsewhere and copied. */
  #renderInto(frame: FdtFrame, { address, size }: RenderTarget): RenderedFrame {
    if (this.#memory.isContiguous(address, size)) {
      return this.#finalizer.renderFrame(frame, this.#memory.view(address, size));
    }
    const target = new Uint8Array(size);
    const blob = this.#finalizer.renderFrame(frame, target);
    this.#memory.write(address, target.subarray(0, blob.size));
    return blob;
  }
}
