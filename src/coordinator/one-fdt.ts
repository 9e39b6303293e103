import {
  encodeKhoMem,
  type KhoMem,
  type OneFdtProfile,
  oneFdtCoreNames,
  oneFdtCoreNodes,
  PROP_MEM,
  writeKhoserMem,
} from '../abi/index.js';
import type { KexecFdt } from '../arch/index.js';
import { KhoError } from '../errors.js';
import type { FdtFrame, RenderedFrame } from '../hashstage/index.js';
import { type Folio, PAGE_SIZE, type PhysicalAddress, walkRadixTree } from '../memblock/index.js';
import type { Finalized, HandoverOutput, OutputParts } from './output.js';
import type { Registry } from './registry.js';
import { driverFrame, type Renderer } from './renderer.js';

interface OneFdtParts extends OutputParts {
  readonly profile: OneFdtProfile;
  readonly fdt: KexecFdt;
}

/**
 * The form of the patch series v4 and v5: all drivers are nodes of one FDT, in a kexec segment in scratch. What is
 * preserved is kept in the tracker while drivers run, as in every profile, and turned into the series' own list here:
 * properties `mem` of the instances (v4), or chunks of bitmaps (v5).
 */
export class OneFdt implements HandoverOutput {
  readonly #parts: OneFdtParts;

  constructor(parts: OneFdtParts) {
    this.#parts = parts;
  }

  async finalize(renderer: Renderer): Promise<Finalized> {
    const { frame, trackerPages } = this.#parts.recorder.step('finalize', 'list preserved memory', () => this.#frame());
    const { address } = this.#parts.fdt.segment;
    const { size, parts } = await this.#render(renderer, frame);
    // The series v4 copies the finished FDT when it loads; v5 loads first, and hands over the size of the segment.
    if (this.#parts.profile.preservedMemory === 'mem-properties') this.#parts.fdt.setSize(size);
    return { root: { address, size }, subtrees: [], rendered: parts, trackerPages, stateBytes: renderer.stateBytes };
  }

  async #render(renderer: Renderer, frame: FdtFrame): Promise<RenderedFrame> {
    const { address, memorySize: room } = this.#parts.fdt.segment;
    try {
      const [whole] = await renderer.render([{ frame, target: { address, size: room }, what: 'the FDT' }]);
      return whole as RenderedFrame;
    } catch (thrown) {
      const error = KhoError.from(thrown).with({ phase: 'finalize' });
      if (error.code !== 'KHO_ENOSPC') throw error;
      const { name, fdtName } = this.#parts.profile;
      const text =
        `the one FDT of ${name} does not fit into its room, ${fdtName}_max = ${room} bytes: ${error.message}; ` +
        'give it more (fdtMax). The kernel would say FDT_ERR_NOSPACE, and fail with -EINVAL';
      throw new KhoError('KHO_ENOSPC', text, { ...error.details, size: room }, { cause: error });
    }
  }

  /** Everything of the FDT but what shards wrote, and the pages of the list of preserved memory. */
  #frame(): { frame: FdtFrame; trackerPages: readonly PhysicalAddress[] } {
    const { memory, reserveMem } = this.#parts.host;
    this.#parts.reservations.preserveReservedMem();
    const folios: Folio[] = [];
    walkRadixTree(memory, this.#parts.reservations.tracker.root, (address, order) => folios.push({ address, order }));
    const { bitmapBits } = this.#parts.profile;
    const list = bitmapBits && writeKhoserMem(memory, folios, this.#parts.reservations.listPages, bitmapBits);
    const mem = list === undefined ? this.#memOf(folios) : undefined;
    const children = new Map<string, FdtFrame>();
    for (const node of oneFdtCoreNodes(this.#parts.profile, reserveMem, list?.first)) children.set(node.name, node);
    for (const driver of this.#parts.registry.drivers) {
      const node = driverFrame(driver.name, driver, this.#parts.registry);
      const insert = mem && { name: PROP_MEM, values: mem.get(driver.name) ?? new Map<string, Uint8Array>() };
      children.set(driver.name, insert === undefined ? node : { ...node, insert });
    }
    const compatible = new TextEncoder().encode(`${this.#parts.profile.compatible}\0`);
    const frame = { name: '', properties: new Map([['compatible', compatible]]), children };
    return { frame, trackerPages: list?.pages ?? [] };
  }

  /** By driver and instance: what its shards preserved, each object an element, in ascending order. */
  #memOf(folios: readonly Folio[]): Map<string, Map<string, Uint8Array>> {
    const owned = new Map<string, Map<string, KhoMem[]>>();
    for (const { address, order } of [...folios].sort((a, b) => a.address - b.address)) {
      const owner = this.#parts.reservations.ownerOf(address);
      // reserve_mem areas have nodes of their own.
      if (owner?.kind !== 'pages' && owner?.kind !== 'guest') continue;
      const instances = owned.get(owner.name) ?? new Map<string, KhoMem[]>();
      owned.set(owner.name, instances);
      const ranges = instances.get(owner.instance ?? '') ?? [];
      instances.set(owner.instance ?? '', ranges);
      ranges.push({ address, size: 2 ** order * PAGE_SIZE });
    }
    return new Map(
      [...owned].map(([driver, instances]) => [
        driver,
        new Map([...instances].map(([instance, ranges]) => [instance, encodeKhoMem(ranges)])),
      ]),
    );
  }
}

/**
 * Whether these drivers can be nodes of one FDT. KHO_EINVAL for a raw blob, which has no nodes; KHO_EEXIST for a driver
 * with the name of a node of the core.
 */
export function checkOneFdt(profile: OneFdtProfile, { drivers }: Registry): void {
  const core = oneFdtCoreNames(profile);
  for (const { name, blob } of drivers) {
    if (blob === 'raw') {
      const text = `the driver '${name}' has a raw blob, and profile ${profile.name} has all drivers as nodes of one FDT`;
      throw new KhoError('KHO_EINVAL', text, { driver: name, field: 'profile' });
    }
    if (core.includes(name)) {
      const text = `the driver '${name}' has the name of the core's own node in the FDT of profile ${profile.name}`;
      throw new KhoError('KHO_EEXIST', text, { driver: name, field: 'profile' });
    }
  }
}
