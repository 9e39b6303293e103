import {
  encodeKexecMetadata,
  KEXEC_METADATA_NAME,
  MEMBLOCK_SUBTREE_NAME,
  ROOT_FDT_SIZE,
  type Subtree,
  writeKhoRoot,
  writeMemblockFdt,
} from '../abi/index.js';
import type { RenderedBlob } from '../hashstage/index.js';
import { PAGE_SIZE } from '../memblock/index.js';
import type { RawPrepared } from '../workers/index.js';
import type { Finalized, HandoverOutput, OutputParts } from './output.js';
import { driverFrame, type Renderer, type RenderJob } from './renderer.js';
import type { BlobRooms } from './reservations.js';

interface SubBlobsParts extends OutputParts {
  readonly rooms: BlobRooms;
  /** What each instance's prepare returned, filled in by the time of {@link SubBlobs.finalize}. */
  readonly prepared: ReadonlyMap<number, unknown>;
}

/** The released form: a root FDT of one page that points to one blob per driver, and to the core's own. */
export class SubBlobs implements HandoverOutput {
  readonly #parts: SubBlobsParts;

  constructor(parts: SubBlobsParts) {
    this.#parts = parts;
  }

  async finalize(renderer: Renderer): Promise<Finalized> {
    const rendered = new Map<string, RenderedBlob>();
    const blobs = await renderer.render(this.#jobs());
    const subtrees: Subtree[] = [];
    let next = 0;
    for (const driver of this.#parts.registry.drivers) {
      const room = this.#parts.rooms.drivers[driver.index];
      if (room === undefined) {
        const [instance] = driver.instances;
        if (instance === undefined) continue;
        // It lies where the driver's prepare put it; the driver has preserved it itself.
        const { blob } = this.#parts.prepared.get(instance) as RawPrepared;
        rendered.set(driver.name, { size: blob.size, nodes: 0, properties: 0 });
        subtrees.push({ name: driver.name, address: blob.address, size: blob.size });
        continue;
      }
      const blob = blobs[next++] as RenderedBlob;
      rendered.set(driver.name, blob);
      subtrees.push({ name: driver.name, address: room.address, size: blob.size });
      this.#parts.reservations.preserved.preserveBlob(room.address, blob.size);
    }
    return this.#parts.recorder.step('finalize', 'root FDT', () => {
      // The kernel adds its own entries at boot, before any driver.
      const all = [...this.#writeCoreBlobs(), ...subtrees];
      const root = { address: this.#parts.rooms.root, size: this.#writeRoot(all) };
      return {
        root,
        subtrees: all,
        rendered,
        trackerPages: this.#parts.reservations.tracker.pages(),
        stateBytes: renderer.stateBytes,
      };
    });
  }

  /** One for each driver but those with a raw blob. */
  #jobs(): RenderJob[] {
    return this.#parts.registry.drivers.flatMap((driver) => {
      const room = this.#parts.rooms.drivers[driver.index];
      if (room === undefined) return [];
      const target = { address: room.address, size: room.pages * PAGE_SIZE };
      const { name } = driver;
      return [{ frame: driverFrame('', driver, this.#parts.registry), target, what: name, driver: name }];
    });
  }

  #writeCoreBlobs(): Subtree[] {
    const { memory, reserveMem, options, kexecCount } = this.#parts.host;
    // This kexec counts: a cold-booted host does its first.
    const metadata = encodeKexecMetadata({ previousRelease: options.release, kexecCount: kexecCount + 1 });
    const core: Subtree[] = [];
    for (const [name, address] of this.#parts.rooms.core) {
      const page = memory.view(address, PAGE_SIZE);
      if (name === KEXEC_METADATA_NAME) page.set(metadata);
      const size = name === MEMBLOCK_SUBTREE_NAME ? writeMemblockFdt(page, reserveMem) : metadata.length;
      core.push({ name, address, size });
      this.#parts.reservations.preserved.preserveBlob(address, size);
    }
    this.#parts.reservations.preserveReservedMem();
    return core;
  }

  /** The root FDT that points to everything; its size. */
  #writeRoot(subtrees: readonly Subtree[]): number {
    const { root } = this.#parts.rooms;
    const { tracker, preserved } = this.#parts.reservations;
    const size = writeKhoRoot(this.#parts.host.memory.view(root, ROOT_FDT_SIZE), this.#parts.profile, {
      memoryMap: tracker.root,
      subtrees,
    });
    preserved.preserveFolio(root, 0);
    return size;
  }
}
