import { Stage } from '#dist/hashstage/index.js';

/**
 * A stage that can be emptied and filled again: everything before the arenas is put back as it was at first, so its memory
 * stays warm, as the memory of a host that has prepared its handover is.
 */
export class ReusableStage {
  readonly #stage: Stage;
  readonly #pristine: Int32Array;

  constructor(options: Parameters<typeof Stage.create>[0]) {
    this.#stage = Stage.create(options);
    this.#stage.touch(this.#stage.geometry.totalWords * 4);
    this.#pristine = this.#stage.words.slice(0, this.#stage.geometry.arenasAt);
  }

  /** An empty stage. Those of before must not be used again: they believe that they have an arena. */
  rewind(): Stage {
    this.#stage.words.set(this.#pristine);
    return Stage.attach(this.#stage.handle);
  }
}
