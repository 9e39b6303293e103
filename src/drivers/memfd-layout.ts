import { PAGE_SIZE } from '../driver.js';

/** A folio of a file, without its place in memory. */
export interface FileFolio {
  /** In pages from the beginning of the file; a multiple of 2^order. */
  readonly index: number;
  readonly order: number;
}

/** Bytes of a file that no folio holds; whole pages. */
export interface FileHole {
  readonly at: number;
  readonly size: number;
}

/** How a file is cut. */
export interface FileShape {
  /** Bytes; the last page may be used in part. */
  readonly size: number;
  /** The largest order of a folio. */
  readonly order: number;
  /** n: every nth stretch of 2^order pages is a hole, none for 0; or where the holes are. */
  readonly holes: number | readonly FileHole[];
}

/** The folios of a file in ascending order: each as large as alignment, holes, the end and `order` allow. */
export function layOutFile(shape: FileShape): FileFolio[] {
  const folios: FileFolio[] = [];
  for (const [start, end] of stretches(shape)) {
    for (let index = start; index < end; ) {
      let order = 0;
      while (order < shape.order && index % 2 ** (order + 1) === 0 && index + 2 ** (order + 1) <= end) order++;
      folios.push({ index, order });
      index += 2 ** order;
    }
  }
  return folios;
}

/** The stretches between holes, in pages [start, end), ascending. */
function* stretches({ size, order, holes }: FileShape): Generator<[number, number]> {
  const pages = Math.ceil(size / PAGE_SIZE);
  if (typeof holes === 'number') {
    const stretch = 2 ** order;
    const step = holes === 0 ? pages : stretch * holes;
    for (let start = 0; start < pages; start += step) {
      const end = holes === 0 ? pages : start + step - stretch;
      if (end > start) yield [start, Math.min(end, pages)];
    }
    return;
  }
  let start = 0;
  for (const { at, size: length } of [...holes].sort((a, b) => a.at - b.at)) {
    if (at / PAGE_SIZE > start) yield [start, Math.min(at / PAGE_SIZE, pages)];
    start = Math.max(start, (at + length) / PAGE_SIZE);
  }
  if (start < pages) yield [start, pages];
}
