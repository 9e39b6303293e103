import {
  encodeKexecMetadata,
  KEXEC_METADATA_NAME,
  LUO_SUBTREE_NAME,
  MEMBLOCK_SUBTREE_NAME,
  ROOT_FDT_SIZE,
  type SubBlobsProfile,
  type Subtree,
  subFdtSize,
  writeKhoRoot,
  writeKhoserMem,
  writeMemblockFdt,
} from '../abi/index.js';
import { KhoError } from '../errors.js';
import type { RenderedBlob } from '../hashstage/index.js';
import { type Folio, PAGE_SIZE, type PhysicalAddress, walkRadixTree } from '../memblock/index.js';
import type { RawPrepared } from '../workers/index.js';
import type { Finalized, HandoverOutput, OutputParts } from './output.js';
import type { Registry } from './registry.js';
import { driverFrame, type Renderer, type RenderJob } from './renderer.js';
import type { BlobRooms } from './reservations.js';

interface SubBlobsParts extends OutputParts {
  readonly profile: SubBlobsProfile;
  readonly rooms: BlobRooms;
  /** What each instance's prepare returned, filled in by the time of {@link SubBlobs.finalize}. */
  readonly prepared: ReadonlyMap<number, unknown>;
}

/**
 * The released form: a root FDT of one page that points to one blob per driver, and to the core's own. What is preserved is
 * kept in the radix tree while drivers run, in every profile; kho-v1 has it turned into a chunk list here.
 */
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
        if (!this.#parts.profile.subtrees.sized) this.#checkSubFdt(driver.name, blob);
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
      const { rooms, reservations, profile, host } = this.#parts;
      reservations.preserved.preserveFolio(rooms.root, 0);
      const { first: memoryMap, pages: trackerPages } = this.#listPreserved();
      const page = host.memory.view(rooms.root, ROOT_FDT_SIZE);
      const root = { address: rooms.root, size: writeKhoRoot(page, { profile, memoryMap, subtrees: all }) };
      return { root, subtrees: all, rendered, trackerPages, stateBytes: renderer.stateBytes };
    });
  }

  /** What the root's memory map leads to, once everything is preserved: the tracker itself, or the list made of it. */
  #listPreserved(): { readonly first: PhysicalAddress | undefined; readonly pages: readonly PhysicalAddress[] } {
    const { host, reservations, profile } = this.#parts;
    const { tracker, listPages } = reservations;
    if (profile.bitmapBits === undefined) return { first: tracker.root, pages: tracker.pages() };
    const folios: Folio[] = [];
    walkRadixTree(host.memory, tracker.root, (address, order) => folios.push({ address, order }));
    return writeKhoserMem(host.memory, folios, listPages, profile.bitmapBits);
  }

  /** KHO_EINVAL unless a blob in a driver's own pages is an FDT that says its own size. */
  #checkSubFdt(driver: string, { address, size }: RawPrepared['blob']): void {
    const { memory } = this.#parts.host;
    const { name } = this.#parts.profile;
    let said: number;
    try {
      said = subFdtSize(memory, address, `the raw blob of '${driver}'`);
    } catch (cause) {
      const text = `profile ${name} hands over FDTs alone, with no size beside them: ${KhoError.from(cause).message}`;
      throw new KhoError('KHO_EINVAL', text, { driver, field: 'profile', phase: 'finalize' }, { cause });
    }
    if (said === size) return;
    const text = `the raw blob of '${driver}' has ${size} bytes, and its header says ${said}, which is all that profile ${name} hands over`;
    throw new KhoError('KHO_EINVAL', text, { driver, field: 'profile', phase: 'finalize' });
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
}

/**
 * Whether these drivers can have blobs of their own. KHO_EINVAL for LUO in a profile that hands over FDTs alone: other raw
 * blobs may be FDTs, which is known when they are made.
 */
export function checkSubBlobs({ name, subtrees }: SubBlobsProfile, { drivers }: Registry): void {
  if (subtrees.sized) return;
  const luo = drivers.find((driver) => driver.blob === 'raw' && driver.name === LUO_SUBTREE_NAME);
  if (luo === undefined) return;
  const text =
    `the driver '${luo.name}' hands over ${luo.compatible}, a raw blob, and profile ${name} hands over FDTs alone: ` +
    'LUO of that time, luo-v1, was an FDT, which is not known here';
  throw new KhoError('KHO_EINVAL', text, { driver: luo.name, field: 'profile' });
}
