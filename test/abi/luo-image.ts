import {
  encodeKhoBlockHeaders,
  encodeKhoVmallocChunks,
  encodeLuo,
  encodeLuoFile,
  encodeLuoFlbs,
  encodeLuoSession,
  encodeMemfd,
  encodeMemfdFolios,
  khoBlockEntryAddress,
  khoBlocks,
  khoVmallocChunks,
  LUO_FILE_SIZE,
  LUO_SESSION_SIZE,
  type LuoFlb,
} from '#dist/abi/index.js';
import { type PhysicalAddress, physicalAddress, SharedPhysicalMemory } from '#dist/memblock/index.js';

export const PAGE = 4096;
export const IMAGE_SIZE = 64 * 2 ** 20;

/** What a test wants to find in memory. */
export interface MemfdModel {
  readonly pos: bigint;
  readonly size: number;
  readonly seals: number;
  readonly folios: readonly { readonly index: number; readonly flags: number; readonly order: number }[];
}
export interface LuoModel {
  readonly liveupdateNumber: bigint;
  readonly sessions: readonly {
    readonly name: string;
    readonly files: readonly { readonly token: bigint; readonly memfd: MemfdModel }[];
  }[];
  readonly flbs: readonly LuoFlb[];
}

/** Memory with a bump allocator: structures are laid out as Linux does, one after the other. */
export class LuoImage {
  readonly memory = SharedPhysicalMemory.create([{ base: physicalAddress(0), size: IMAGE_SIZE, nid: 0, backed: true }]);
  readonly orders = new Map<PhysicalAddress, number>();
  #next = PAGE;

  pages(count: number): PhysicalAddress {
    const address = physicalAddress(this.#next);
    this.#next += count * PAGE;
    return address;
  }

  folio(order: number): PhysicalAddress {
    const size = PAGE * 2 ** order;
    this.#next = Math.ceil(this.#next / size) * size;
    const address = this.pages(2 ** order);
    this.orders.set(address, order);
    return address;
  }

  put(address: PhysicalAddress, bytes: Uint8Array): PhysicalAddress {
    this.memory.write(address, bytes);
    return address;
  }

  /** A chain of blocks with the entries; returns its head. */
  blocks(entrySize: number, entries: readonly Uint8Array[]): PhysicalAddress | undefined {
    const blocks = Array.from({ length: khoBlocks(entrySize, entries.length) }, () => this.pages(1));
    for (const [index, header] of encodeKhoBlockHeaders(blocks, entrySize, entries.length).entries()) {
      this.put(blocks[index] ?? physicalAddress(0), header);
    }
    for (const [index, entry] of entries.entries()) this.put(khoBlockEntryAddress(blocks, entrySize, index), entry);
    return blocks[0];
  }

  /** An area of single pages with the content; its descriptor. */
  vmalloc(content: Uint8Array) {
    const totalPages = Math.ceil(content.length / PAGE);
    const pieces = Array.from({ length: totalPages }, () => this.pages(1));
    const chunks = Array.from({ length: khoVmallocChunks(totalPages) }, () => this.pages(1));
    for (const [index, bytes] of encodeKhoVmallocChunks(chunks, pieces).entries()) {
      this.put(chunks[index] ?? physicalAddress(0), bytes);
    }
    for (const [index, piece] of pieces.entries()) {
      this.put(piece, content.subarray(index * PAGE, (index + 1) * PAGE));
    }
    return { first: chunks[0], totalPages, flags: 1, order: 0 };
  }

  memfd({ pos, size, seals, folios }: MemfdModel): PhysicalAddress {
    const placed = folios.map(({ index, flags, order }) => ({ index, flags, address: this.folio(order) }));
    const none = { first: undefined, totalPages: 0, flags: 0, order: 0 };
    const list = folios.length === 0 ? none : this.vmalloc(encodeMemfdFolios(placed));
    return this.put(this.pages(1), encodeMemfd({ pos, size, seals, folioCount: folios.length, folios: list }));
  }

  /** Everything; the address of the LUO blob. */
  luo({ liveupdateNumber, sessions, flbs }: LuoModel): PhysicalAddress {
    const entries = sessions.map(({ name, files }) => {
      const fileEntries = files.map(({ token, memfd }) =>
        encodeLuoFile({ compatible: 'memfd-v2', data: BigInt(this.memfd(memfd)), token }),
      );
      return encodeLuoSession({ name, files: this.blocks(LUO_FILE_SIZE, fileEntries), count: files.length });
    });
    const head = this.blocks(LUO_SESSION_SIZE, entries);
    const flbPage = this.put(this.pages(1), encodeLuoFlbs(flbs));
    return this.put(this.pages(1), encodeLuo({ liveupdateNumber, sessions: head, flbs: flbPage }));
  }
}
