import { KhoError } from '../errors.js';
import { Finalizer, type RenderedBlob, type Stage } from '../hashstage/index.js';
import { PAGE_SIZE, type PhysicalAddress, type SharedPhysicalMemory } from '../memblock/index.js';
import type { RegisteredDriver, Registry } from './registry.js';
import type { Renderer } from './renderer.js';
import type { BlobRoom } from './reservations.js';
import type { TimelineRecorder } from './timeline.js';

/** Mode `hash`: the stage becomes the drivers' FDTs, on the main thread. */
export class StageRenderer implements Renderer {
  readonly #memory: SharedPhysicalMemory;
  readonly #registry: Registry;
  readonly #recorder: TimelineRecorder;
  readonly #finalizer: Finalizer;

  constructor(stage: Stage, memory: SharedPhysicalMemory, registry: Registry, recorder: TimelineRecorder) {
    this.#memory = memory;
    this.#registry = registry;
    this.#recorder = recorder;
    this.#finalizer = recorder.step('finalize', 'collect names', () => new Finalizer(stage));
  }

  render(driver: RegisteredDriver, { address, pages }: BlobRoom): RenderedBlob {
    const shards = driver.instances.flatMap((item) => {
      const { firstShard = 0, shardCount = 0 } = this.#registry.instances[item] ?? {};
      return Array.from({ length: shardCount }, (_, shard) => firstShard + shard);
    });
    return this.#recorder.step('finalize', `render ${driver.name}`, () => {
      try {
        return this.#renderInto(address, pages * PAGE_SIZE, (target) =>
          this.#finalizer.render(shards, driver.compatible, target),
        );
      } catch (error) {
        throw KhoError.from(error).with({ driver: driver.name, phase: 'finalize' });
      }
    });
  }

  /** A blob may lie across two segments of memory: then it is made elsewhere and copied. */
  #renderInto(address: PhysicalAddress, room: number, render: (target: Uint8Array) => RenderedBlob): RenderedBlob {
    if (this.#memory.isContiguous(address, room)) return render(this.#memory.view(address, room));
    const target = new Uint8Array(room);
    const blob = render(target);
    this.#memory.write(address, target.subarray(0, blob.size));
    return blob;
  }
}
