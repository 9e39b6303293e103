import {
  csumPartial,
  encodeKexecMetadata,
  encodeKhoTestFolios,
  KHO_V4,
  type SubBlobsProfile,
  type Subtree,
  writeKhoRoot,
  writeKhoserMem,
  writeKhoTestFdt,
  writeMemblockFdt,
} from '#dist/abi/index.js';
import { FdtWriter } from '#dist/fdt/index.js';
import {
  type Folio,
  naturalOrders,
  type PhysicalAddress,
  physicalAddress,
  RadixTree,
  type SharedPhysicalMemory,
} from '#dist/memblock/index.js';
import { LuoImage, type LuoModel, PAGE } from '../abi/luo-image.js';
import { loadRecord, MIB, SCRATCH, SEGMENT } from '../arch/kexec-memory.js';

/** Pages of the tracker lie here, away from all that is preserved. */
const TABLES = 40 * MIB;

export const MODEL: LuoModel = {
  liveupdateNumber: 3n,
  sessions: [
    {
      name: 'vm0',
      files: [
        {
          token: 1n,
          memfd: {
            pos: 77n,
            size: 5 * PAGE + 100,
            seals: 0x06,
            folios: [
              { index: 0, flags: 3, order: 1 },
              { index: 4, flags: 3, order: 0 },
            ],
          },
        },
        { token: 2n ** 40n, memfd: { pos: 0n, size: 0, seals: 0, folios: [] } },
      ],
    },
    {
      name: 'agent',
      files: [
        {
          token: 0n,
          memfd: {
            pos: 0n,
            size: 3 * PAGE,
            seals: 0,
            folios: [0, 1, 2].map((index) => ({ index, flags: 3, order: 0 })),
          },
        },
      ],
    },
    { name: 'idle', files: [] },
  ],
  flbs: [{ compatible: 'flb-v0', data: 0xfeedf00dcafebee0n, count: 3n }],
};

/** Folios of kho_test, by order. */
const TEST_ORDERS = [0, 3, 1, 0];

/** A whole handover in 64 MiB, laid out by the encoders of the ABI and marked in a tracker as Linux marks it. */
export class HandoverImage extends LuoImage {
  /** What is marked; tests may take marks away, or add some, before {@link finish}. */
  preserved: Folio[] = [];
  readonly subtrees: Subtree[] = [];
  readonly root: PhysicalAddress;
  readonly #tables: PhysicalAddress[] = [];
  tracker: RadixTree | undefined;
  readonly profile: SubBlobsProfile;

  constructor(profile: SubBlobsProfile = KHO_V4) {
    super();
    this.profile = profile;
    this.root = this.pages(1);
    loadRecord(this.memory, { root: this.root });
  }

  override pages(count: number): PhysicalAddress {
    const address = super.pages(count);
    this.preserved?.push(...naturalOrders(address, count));
    return address;
  }

  /** A blob in a folio of its own. */
  blob(name: string, bytes: Uint8Array): PhysicalAddress {
    const order = Math.max(0, Math.ceil(Math.log2(bytes.length / PAGE)));
    const address = this.put(this.folio(order), bytes);
    this.subtrees.push({ name, address, size: bytes.length });
    return address;
  }

  /**
   * Everything that a real kernel hands over, and a blob and pages of a driver that nobody knows; raw blobs only where the
   * profile has them.
   */
  static whole(model: LuoModel = MODEL, profile: SubBlobsProfile = KHO_V4): HandoverImage {
    const image = new HandoverImage(profile);
    const { sized } = profile.subtrees;
    if (sized) image.blob('kexec-metadata', encodeKexecMetadata({ previousRelease: '7.2.13', kexecCount: 1 }));
    const trace = image.pages(21);
    image.memory.fill(trace, 21 * PAGE, 0x74);
    const reservations = new Uint8Array(PAGE);
    const size = writeMemblockFdt(reservations, [{ name: 'trace', address: trace, size: 20 * PAGE + 5 }]);
    image.blob('memblock', reservations.slice(0, size));
    // The part of a page at the end is not preserved.
    image.preserved = image.preserved.filter(({ address }) => address < trace || address >= trace + 21 * PAGE);
    image.preserved.push(...naturalOrders(trace, 20));
    image.addKhoTest();
    if (sized) image.subtrees.push({ name: 'LUO', address: image.luo(model), size: 32 });
    const writer = new FdtWriter();
    writer.beginNode('');
    writer.string('compatible', 'mystery-v1');
    writer.u64('pages', image.pages(2), 'little');
    writer.endNode();
    image.blob('mystery', writer.finish());
    if (sized) image.blob('noise', Uint8Array.of(0xde, 0xad, 0xbe, 0xef, 5));
    return image;
  }

  addKhoTest(): void {
    let csum = 0;
    const folios = TEST_ORDERS.map((order, index) => {
      const address = this.folio(order);
      const bytes = Uint8Array.from({ length: PAGE * 2 ** order }, (_, at) => (at * (index + 3)) >> 2);
      this.put(address, bytes);
      csum = csumPartial(bytes, csum);
      return { address, order };
    });
    const foliosInfo = this.vmalloc(encodeKhoTestFolios(folios));
    const fdt = new Uint8Array(PAGE);
    const size = writeKhoTestFdt(fdt, { folioCount: folios.length, foliosInfo, csum });
    this.blob('kho_test', fdt.slice(0, size));
  }

  /** Marks what is preserved and writes the root FDT. */
  finish(): SharedPhysicalMemory {
    const memoryMap = this.#list();
    const page = new Uint8Array(PAGE);
    writeKhoRoot(page, { profile: this.profile, memoryMap, subtrees: this.subtrees });
    this.put(this.root, page);
    return this.memory;
  }

  #list(): PhysicalAddress | undefined {
    const { bitmapBits } = this.profile;
    const table = (): PhysicalAddress => {
      const next = physicalAddress(TABLES + this.#tables.length * PAGE);
      this.#tables.push(next);
      return next;
    };
    if (bitmapBits !== undefined) {
      const room = Array.from({ length: 64 }, table);
      const { first, pages } = writeKhoserMem(this.memory, this.preserved, room, bitmapBits);
      this.#tables.splice(pages.length);
      return first;
    }
    const tracker = RadixTree.create(this.memory, table);
    for (const { address, order } of this.preserved) tracker.ensure(address, order);
    for (const { address, order } of this.preserved) tracker.set(address, order);
    this.tracker = tracker;
    return tracker.root;
  }

  /** Pages of the tracker, the root or the first chunk first. */
  get tables(): readonly PhysicalAddress[] {
    return this.#tables;
  }

  /** Where a blob lies. */
  at(name: string): PhysicalAddress {
    const subtree = this.subtrees.find((one) => one.name === name);
    if (subtree === undefined) throw new Error(`no blob ${name}`);
    return subtree.address;
  }
}

export { MIB, PAGE, SCRATCH, SEGMENT };
