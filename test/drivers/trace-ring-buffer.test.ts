import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  MAX_EVENT_SIZE,
  RING_BUFFER_PAGE_CAPACITY,
  type RingBufferEvent,
  RingBufferPage,
  readRingBufferPage,
} from '#dist/drivers/trace-ring-buffer.js';

const invalid = expect.objectContaining({ code: 'KHO_EINVAL' });

/** Sizes around the one that type_len can hold, pauses around the one that time_delta can hold. */
const data = fc
  .oneof(
    fc.integer({ min: 1, max: 12 }),
    fc.integer({ min: 26, max: 31 }),
    fc.integer({ min: 1, max: MAX_EVENT_SIZE / 4 }),
  )
  .chain((words) => fc.uint8Array({ minLength: words * 4, maxLength: words * 4 }));
const pauses = fc.oneof(
  fc.nat(10_000),
  fc.integer({ min: 2 ** 27 - 2, max: 2 ** 27 + 2 }),
  fc.integer({ min: 0, max: 2 ** 40 }),
);
const events = fc
  .tuple(fc.nat(2 ** 50), fc.array(fc.record({ data, pause: pauses }), { minLength: 1, maxLength: 60 }))
  .map(([start, list]) => {
    let time = start;
    return list.map(({ data, pause }): RingBufferEvent => {
      time += pause;
      return { time, data };
    });
  });

describe('a page of the trace ring buffer', () => {
  it('gives back the events that it took, up to the first without room', () => {
    fc.assert(
      fc.property(events, (list) => {
        const page = new RingBufferPage();
        const taken: RingBufferEvent[] = [];
        for (const event of list) {
          const before = page.bytes.slice();
          if (!page.append(event)) {
            expect(Buffer.compare(page.bytes, before)).toBe(0);
            expect(page.commit + 16 + event.data.length).toBeGreaterThan(RING_BUFFER_PAGE_CAPACITY);
            break;
          }
          taken.push(event);
        }
        expect([...readRingBufferPage(page.bytes)]).toEqual(taken);
      }),
    );
  });

  it('is laid out as struct buffer_data_page and its events', () => {
    const page = new RingBufferPage();
    page.append({ time: 0x1_0000_0005, data: Uint8Array.of(1, 2, 3, 4) });
    page.append({ time: 0x1_0000_0007, data: new Uint8Array(116).fill(0xee) });
    page.append({ time: 0x1_0000_0007 + 2 ** 27 + 1, data: Uint8Array.of(5, 6, 7, 8) });
    const words = new Uint32Array(page.bytes.buffer);
    expect([...words.subarray(0, 4)]).toEqual([5, 1, 8 + 124 + 16, 0]); // time stamp, commit
    expect([...words.subarray(4, 6)]).toEqual([1, 0x04030201]); // type_len 1, delta 0
    expect([...words.subarray(6, 8)]).toEqual([2 << 5, 120]); // type_len 0, delta 2, its length with itself
    const third = 6 + 124 / 4;
    expect([...words.subarray(third, third + 4)]).toEqual([30 | (1 << 5), 1, 1, 0x08070605]); // time extend first
  });

  it('holds the largest event, but none that is larger, odd, empty or earlier than the last', () => {
    const page = new RingBufferPage();
    expect(page.append({ time: 0, data: new Uint8Array(MAX_EVENT_SIZE) })).toBe(true);
    expect(page.commit).toBe(RING_BUFFER_PAGE_CAPACITY);
    for (const length of [MAX_EVENT_SIZE + 4, 3, 0]) {
      expect(() => new RingBufferPage().append({ time: 0, data: new Uint8Array(length) })).toThrow(invalid);
    }
    const late = new RingBufferPage();
    late.append({ time: 10, data: new Uint8Array(4) });
    expect(() => late.append({ time: 9, data: new Uint8Array(4) })).toThrow(invalid);
  });

  it('is refused when damaged, and never read beyond its end', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 4096, maxLength: 4096 }), fc.nat(0xfffff), (page, commit) => {
        new DataView(page.buffer, page.byteOffset).setUint32(8, commit, true);
        try {
          for (const event of readRingBufferPage(page)) expect(event.data.length).toBeGreaterThan(0);
        } catch (error) {
          expect(error).toEqual(invalid);
        }
      }),
    );
    const cut = new RingBufferPage();
    cut.append({ time: 0, data: new Uint8Array(40) });
    cut.bytes[8] -= 4;
    expect(() => [...readRingBufferPage(cut.bytes)]).toThrow(invalid);
  });
});
