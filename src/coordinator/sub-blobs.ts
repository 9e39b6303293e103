import {
  encodeKexecMetadata,
  KEXEC_METADATA_NAME,
  MEMBLOCK_SUBTREE_NAME,
  type Profile,
  ROOT_FDT_SIZE,
  type Subtree,
  writeKhoRoot,
  writeMemblockFdt,
} from '../abi/index.js';
import type { RenderedBlob } from '../hashstage/index.js';
import { PAGE_SIZE, preserveBlob } from '../memblock/index.js';
import type { RawPrepared } from '../workers/index.js';
import type { Host } from './host.js';
import type { Finalized, HandoverOutput } from './output.js';
import type { Registry } from './registry.js';
import { driverFrame, type Renderer, type RenderJob } from './renderer.js';
import type { BlobRooms, Reservations } from './reservations.js';
import type { TimelineRecorder } from './timeline.js';

/** The kexec that a cold-booted host does is its first. */
const FIRST_KEXEC = 1;

/** The released form: a root FDT of one page that points to one blob per driver, and to the core's own. */
export class SubBlobs implements HandoverOutput {
  readonly #host: Host;
  readonly #profile: Profile;
  readonly #registry: Registry;
  readonly #reservations: Reservations;
  readonly #rooms: BlobRooms;
  readonly #prepared: ReadonlyMap<number, unknown>;
  readonly #recorder: TimelineRecorder;

  /** `prepared`: what each instance's prepare returned, filled in by the time of {@link finalize}. */
  constructor(parts: {
    readonly host: Host;
    readonly profile: Profile;
    readonly registry: Registry;
    readonly reservations: Reservations;
    readonly rooms: BlobRooms;
    readonly prepared: ReadonlyMap<number, unknown>;
    readonly recorder: TimelineRecorder;
  }) {
    this.#host = parts.host;
    this.#profile = parts.profile;
    this.#registry = parts.registry;
    this.#reservations = parts.reservations;
    this.#rooms = parts.rooms;
    this.#prepared = parts.prepared;
    this.#recorder = parts.recorder;
  }

  async finalize(renderer: Renderer): Promise<Finalized> {
    const rendered = new Map<string, RenderedBlob>();
    const blobs = await renderer.render(this.#jobs());
    const subtrees: Subtree[] = [];
    let next = 0;
    for (const driver of this.#registry.drivers) {
      const room = this.#rooms.drivers[driver.index];
      if (room === undefined) {
        const [instance] = driver.instances;
        if (instance === undefined) continue;
        // It lies where the driver's prepare put it; the driver has preserved it itself.
        const { blob } = this.#prepared.get(instance) as RawPrepared;
        rendered.set(driver.name, { size: blob.size, nodes: 0, properties: 0 });
        subtrees.push({ name: driver.name, address: blob.address, size: blob.size });
        continue;
      }
      const blob = blobs[next++] as RenderedBlob;
      rendered.set(driver.name, blob);
      subtrees.push({ name: driver.name, address: room.address, size: blob.size });
      preserveBlob(this.#reservations.tracker, room.address, blob.size);
    }
    return this.#recorder.step('finalize', 'root FDT', () => {
      // The kernel adds its own entries at boot, before any driver.
      const all = [...this.#writeCoreBlobs(), ...subtrees];
      const root = { address: this.#rooms.root, size: this.#writeRoot(all) };
      return {
        root,
        subtrees: all,
        rendered,
        trackerPages: this.#reservations.tracker.pages(),
        stateBytes: renderer.stateBytes,
      };
    });
  }

  /** One for each driver but those with a raw blob. */
  #jobs(): RenderJob[] {
    return this.#registry.drivers.flatMap((driver) => {
      const room = this.#rooms.drivers[driver.index];
      if (room === undefined) return [];
      const target = { address: room.address, size: room.pages * PAGE_SIZE };
      const { name } = driver;
      return [{ frame: driverFrame('', driver, this.#registry), target, what: name, driver: name }];
    });
  }

  #writeCoreBlobs(): Subtree[] {
    const { memory, reserveMem, options } = this.#host;
    const metadata = encodeKexecMetadata({ previousRelease: options.release, kexecCount: FIRST_KEXEC });
    const core: Subtree[] = [];
    for (const [name, address] of this.#rooms.core) {
      const page = memory.view(address, PAGE_SIZE);
      if (name === KEXEC_METADATA_NAME) page.set(metadata);
      const size = name === MEMBLOCK_SUBTREE_NAME ? writeMemblockFdt(page, reserveMem) : metadata.length;
      core.push({ name, address, size });
      preserveBlob(this.#reservations.tracker, address, size);
    }
    this.#reservations.preserveReservedMem();
    return core;
  }

  /** The root FDT that points to everything; its size. */
  #writeRoot(subtrees: readonly Subtree[]): number {
    const { root } = this.#rooms;
    const { tracker } = this.#reservations;
    const size = writeKhoRoot(this.#host.memory.view(root, ROOT_FDT_SIZE), this.#profile, {
      memoryMap: tracker.root,
      subtrees,
    });
    tracker.set(root, 0);
    return size;
  }
}
