/**
 * The states of hosted drivers on their thread. They outlive a run that was rolled back: the machines go on. After a
 * handover, or with other drivers, they are made anew: see `generation` of a RunDescription.
 */
export class LiveStates {
  #generation: string | undefined;
  readonly #states = new Map<string, unknown>();

  /** Forgets all states of another generation. */
  enter(generation: string): void {
    if (this.#generation !== generation) this.#states.clear();
    this.#generation = generation;
  }

  has(instance: string): boolean {
    return this.#states.has(instance);
  }

  get(instance: string): unknown {
    return this.#states.get(instance);
  }

  set(instance: string, state: unknown): void {
    this.#states.set(instance, state);
  }
}
