import { describe, expect, it } from 'vitest';
import { khoTestCsum, readKhoTest } from '#dist/abi/index.js';
import khoTest from '#dist/drivers/kho-test.js';
import { physicalAddress } from '#dist/memblock/index.js';
import type { Driver } from '#dist/workers/driver.js';
import { SmallHost } from './small-host.js';

const driver = khoTest as unknown as Driver;
const PAGE = 4096;

/** Hands over and reads memory back with the decoder. The blob is preserved last. */
async function handedOver(options: unknown) {
  const host = new SmallHost(driver, options);
  const blob = await host.handOver();
  const address = physicalAddress(Number.parseInt([...host.preserved].at(-1) ?? '', 16));
  return { host, read: readKhoTest(host.memory, address, blob.length) };
}

describe('kho-test', () => {
  it('has the folios that are asked for, in that order, side by side, each an object of its own', async () => {
    const orders = [0, 3, 0, 10, 1, 3, 0, 9];
    const { host, read } = await handedOver({ orders });
    expect(read.folios.map(({ order }) => order)).toEqual(orders);
    for (const { address, order } of read.folios) expect(host.preserved).toContain(`${address.toString(16)}/${order}`);
    const places = [...read.folios].sort((a, b) => a.address - b.address);
    const gaps = places.slice(1).map(({ address }, index) => {
      const before = places[index] ?? { address: host.memory.base, order: 0 };
      return address - before.address - PAGE * 2 ** before.order;
    });
    expect(gaps).toEqual(gaps.map(() => 0));
    expect(host.allocatedPages).toBe(orders.reduce((sum, order) => sum + 2 ** order, 0) + 3);
  });

  it('draws orders that make up the size, 8 MiB as in the kernel if none is given', async () => {
    for (const [options, size] of [
      [{}, 8 * 2 ** 20],
      [{ size: '2M' }, 2 * 2 ** 20],
      [{ size: '12K' }, 12 * 2 ** 10],
    ] as const) {
      const { read } = await handedOver(options);
      expect(read.folios.reduce((sum, { order }) => sum + PAGE * 2 ** order, 0)).toBe(size);
    }
  });

  it('has folios of every order in most runs of 8 MiB, and not the same ones for every seed', () => {
    const drawn = Array.from({ length: 20 }, (_, seed) => {
      const { orders } = new SmallHost(driver, {}, { seed }).state as { orders: number[] };
      return orders;
    });
    expect(new Set(drawn.flat()).size).toBe(11);
    expect(new Set(drawn.map(String)).size).toBe(20);
  });

  it('hands over the checksum of what is in memory', async () => {
    const { host, read } = await handedOver({ orders: [2, 0, 5] });
    expect(read.csum).toBe(khoTestCsum(host.memory, read.folios));
    expect(read.csum).not.toBe(0);
  });

  it('refuses in the successor what has another checksum, as the kernel does', async () => {
    const { host, read } = await handedOver({ orders: [2, 0, 5] });
    const at = physicalAddress((read.folios[2]?.address ?? 0) + 12_345);
    host.memory.write(at, Uint8Array.of((host.memory.read(at, 1)[0] ?? 0) ^ 0x10));
    await expect(host.restore(host.blob())).rejects.toMatchObject({
      code: 'KHO_EDIGEST',
      message: expect.stringMatching(/checksum is 0x\w+, and 0x\w+ was handed over/),
    });
  });
});
