import { KhoError } from '../errors.js';
import type { FdtNode } from '../fdt/index.js';
import type { Folio, ImageMemory, PageRange, PhysicalAddress } from '../memblock/index.js';
import { physicalAddress } from '../memblock/index.js';
import { CallbackScope, type MemoryReader, type RestoreContext, type SubBlob } from '../workers/index.js';
import type { PreservedMemory } from './preserved-memory.js';

/** The context of `restore`: one instance's node, memory to read, and memory to take over. */
export class DriverRestoreContext implements RestoreContext {
  readonly driver: string;
  readonly instance: string;
  readonly blob: SubBlob;
  readonly memory: MemoryReader;
  readonly #scope = new CallbackScope('restore');
  readonly #node: FdtNode | undefined;
  readonly #preserved: PreservedMemory;

  /** `node` is undefined for a driver with a raw blob, whose one instance is named as the driver. */
  constructor(
    driver: string,
    blob: SubBlob,
    node: FdtNode | undefined,
    memory: ImageMemory,
    preserved: PreservedMemory,
  ) {
    this.driver = driver;
    this.instance = node?.name ?? driver;
    this.blob = blob;
    this.#node = node;
    this.#preserved = preserved;
    const scope = this.#scope;
    this.memory = {
      read(address: PhysicalAddress, length: number): Uint8Array {
        scope.check('memory.read');
        return memory.read(address, length);
      },
      readU64(address: PhysicalAddress): bigint {
        scope.check('memory.read');
        return memory.readU64(address);
      },
      readAddress(address: PhysicalAddress): PhysicalAddress {
        scope.check('memory.read');
        return physicalAddress(memory.readU64Number(address));
      },
    };
  }

  get node(): FdtNode {
    if (this.#node !== undefined) return this.#node;
    throw new KhoError('KHO_EPERM', `'${this.driver}' has a raw blob, which has no nodes: read ctx.blob`, {
      call: 'node',
    });
  }

  claim(pages: PageRange | Folio): void {
    this.#scope.check('claim');
    this.#preserved.settle(pages, 'claimed');
  }

  claimFolio(address: PhysicalAddress): Folio {
    this.#scope.check('claim');
    return this.#preserved.settleAt(address, 'claimed');
  }

  discard(pages: PageRange | Folio): void {
    this.#scope.check('discard');
    this.#preserved.settle(pages, 'discarded');
  }

  /** The callback has returned. */
  close(): void {
    this.#scope.close();
  }
}
