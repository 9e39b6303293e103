import type { FdtNode } from '../fdt/index.js';
import type { Folio, ImageMemory, PageRange, PhysicalAddress } from '../memblock/index.js';
import { physicalAddress } from '../memblock/index.js';
import { CallbackScope, type MemoryReader, type RestoreContext } from '../workers/index.js';
import type { PreservedMemory } from './preserved-memory.js';

/** The context of `restore`: one instance's node, memory to read, and memory to take over. */
export class DriverRestoreContext implements RestoreContext {
  readonly driver: string;
  readonly instance: string;
  readonly node: FdtNode;
  readonly memory: MemoryReader;
  readonly #scope = new CallbackScope('restore');
  readonly #preserved: PreservedMemory;

  constructor(driver: string, node: FdtNode, memory: ImageMemory, preserved: PreservedMemory) {
    this.driver = driver;
    this.instance = node.name;
    this.node = node;
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

  claim(pages: PageRange | Folio): void {
    this.#scope.check('claim');
    this.#preserved.settle(pages, 'claimed');
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
