import { type FdtFrame, Finalizer, type RenderedFrame, type Stage } from '../hashstage/index.js';
import type { SharedPhysicalMemory } from '../memblock/index.js';
import { renderInto } from '../workers/index.js';
import type { Renderer, RenderTarget } from './renderer.js';
import type { TimelineRecorder } from './timeline.js';

/** Mode `hash`: the stage becomes FDTs, on the main thread. */
export class StageRenderer implements Renderer {
  readonly #memory: SharedPhysicalMemory;
  readonly #recorder: TimelineRecorder;
  readonly #finalizer: Finalizer;

  constructor(stage: Stage, memory: SharedPhysicalMemory, recorder: TimelineRecorder) {
    this.#memory = memory;
    this.#recorder = recorder;
    this.#finalizer = recorder.step('finalize', 'collect names', () => new Finalizer(stage));
  }

  render(frame: FdtFrame, target: RenderTarget, what: string): RenderedFrame {
    const room = { memory: this.#memory, ...target };
    return this.#recorder.step('finalize', `render ${what}`, () =>
      renderInto(room, (target) => this.#finalizer.renderFrame(frame, target)),
    );
  }
}
