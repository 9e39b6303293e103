/**
 * A page of the kernel's trace ring buffer, struct buffer_data_page (Linux kernel/trace/ring_buffer.c and
 * include/linux/ring_buffer.h, 64-bit little-endian).
 *
 * ```text
 *   0x000  u64  time stamp of the page: the first event counts from here
 *   0x008  u64  commit: bytes of events that follow (the upper bits are flags)
 *   0x010  event | event | ...                                                     | unused
 *   0x1000
 *
 *   event  u32  type_len:5 | time_delta:27, in the order of C bit fields: type_len is the low bits
 *          1..28  data: type_len 4-byte words follow
 *          0      data: u32 with the length of itself and the data, then the data, padded to 4 bytes
 *          29     padding
 *          30     time extend: u32 with time_delta's bits from 27 on; the next event adds its own delta
 *          31     absolute time stamp
 * ```
 */
import { KhoError, PAGE_SIZE } from '../driver.js';

const HEADER_SIZE = 16;
const COMMIT = 8;
/** Bytes of events that a page holds. */
export const RING_BUFFER_PAGE_CAPACITY = PAGE_SIZE - HEADER_SIZE;
/** The largest event that is stored: what a page holds, less the event's header and length. */
export const MAX_EVENT_SIZE = RING_BUFFER_PAGE_CAPACITY - 8;
/** Bits of the commit word that are a size; the kernel keeps flags above (RB_MISSED_EVENTS and the like). */
const COMMIT_MASK = 0xfffff;

const WORD = 4;
const TYPE_BITS = 5;
const TYPE_MASK = 0x1f;
const DELTA_BITS = 27;
const DELTA_LIMIT = 2 ** DELTA_BITS;
const TYPE_DATA_MAX = 28;
const TYPE_PADDING = 29;
const TYPE_TIME_EXTEND = 30;
/** Data up to this size has its length in type_len. */
const SMALL_DATA_MAX = TYPE_DATA_MAX * WORD;

export interface RingBufferEvent {
  /** Nanoseconds of the trace clock, at most 2^53-1. */
  readonly time: number;
  /** A multiple of 4 bytes; the format keeps no finer length for small events. */
  readonly data: Uint8Array;
}

/** One page being filled with events of ascending times. */
export class RingBufferPage {
  readonly bytes = new Uint8Array(PAGE_SIZE);
  readonly #view = new DataView(this.bytes.buffer);
  #commit = 0;
  #time = 0;

  /** Bytes of events so far. */
  get commit(): number {
    return this.#commit;
  }

  /**
   * Adds an event; false, and nothing is changed, if the page has no room for it. KHO_EINVAL for data that no page could
   * hold or that is not a multiple of 4 bytes, or a time before the last one.
   */
  append({ time, data }: RingBufferEvent): boolean {
    if (data.length === 0 || data.length % WORD !== 0 || data.length > MAX_EVENT_SIZE) {
      throw new KhoError('KHO_EINVAL', `an event of ${data.length} bytes: not a multiple of 4 up to ${MAX_EVENT_SIZE}`);
    }
    if (this.#commit === 0) this.#time = time;
    const delta = time - this.#time;
    if (!Number.isSafeInteger(time) || delta < 0) {
      throw new KhoError('KHO_EINVAL', `an event at ${time} ns cannot follow one at ${this.#time} ns`);
    }
    const extend = delta >= DELTA_LIMIT;
    const small = data.length <= SMALL_DATA_MAX;
    const size = (extend ? 2 * WORD : 0) + (small ? WORD : 2 * WORD) + data.length;
    if (this.#commit + size > RING_BUFFER_PAGE_CAPACITY) return false;

    if (this.#commit === 0) this.#view.setBigUint64(0, BigInt(time), true);
    let offset = HEADER_SIZE + this.#commit;
    const word = (value: number) => {
      this.#view.setUint32(offset, value, true);
      offset += WORD;
    };
    if (extend) {
      word(eventHeader(TYPE_TIME_EXTEND, delta % DELTA_LIMIT));
      word(Math.floor(delta / DELTA_LIMIT));
    }
    word(eventHeader(small ? data.length / WORD : 0, extend ? 0 : delta));
    if (!small) word(data.length + WORD);
    this.bytes.set(data, offset);
    this.#time = time;
    this.#commit += size;
    this.#view.setBigUint64(COMMIT, BigInt(this.#commit), true);
    return true;
  }
}

/** Reads the events of a page. KHO_EINVAL, with the offset, if they do not fit into what was committed. */
export function* readRingBufferPage(page: Uint8Array): Generator<RingBufferEvent, void> {
  const view = new DataView(page.buffer, page.byteOffset, page.length);
  let time = Number(view.getBigUint64(0, true));
  const end = HEADER_SIZE + (view.getUint32(COMMIT, true) & COMMIT_MASK);
  let offset = HEADER_SIZE;
  const word = (): number => {
    if (offset + WORD > Math.min(end, page.length)) throw damaged(offset);
    const value = view.getUint32(offset, true);
    offset += WORD;
    return value;
  };
  while (offset < end) {
    const header = word();
    const type = header & TYPE_MASK;
    time += header >>> TYPE_BITS;
    if (type === TYPE_TIME_EXTEND) {
      time += word() * DELTA_LIMIT;
      continue;
    }
    if (type >= TYPE_PADDING) throw damaged(offset - WORD);
    const length = type === 0 ? word() - WORD : type * WORD;
    if (length <= 0 || offset + length > Math.min(end, page.length)) throw damaged(offset - WORD);
    yield { time, data: page.slice(offset, offset + length) };
    offset += Math.ceil(length / WORD) * WORD;
  }
}

function eventHeader(type: number, delta: number): number {
  return (type | (delta << TYPE_BITS)) >>> 0;
}

function damaged(offset: number): KhoError {
  return new KhoError('KHO_EINVAL', `the ring-buffer page is damaged at offset ${offset}`, { offset });
}
