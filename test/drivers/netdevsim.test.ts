import { expect, it } from 'vitest';
import type { Driver } from '#dist/driver.js';
import netdevsim from '#dist/drivers/netdevsim.js';
import { checkNodeName, FdtReader } from '#dist/fdt/index.js';
import { SmallHost } from './small-host.js';

const INFINIBAND = Array(20).fill('8A').join(':');

it('a real interface is handed over under its name, with its address, MTU and queues', async () => {
  for (const [mac, bytes] of [
    ['02:5a:31:00:9c:77', 6],
    [INFINIBAND, 20],
  ] as const) {
    const host = new SmallHost(netdevsim as Driver, { ifname: 'ens1f0np0', mac, mtu: 9000, queues: 20 });
    const before = host.snapshotDigest();
    const blob = await host.handOver();
    expect((await host.restore(blob)).digest).toBe(before);
    const node = FdtReader.open(blob, { strict: true }).root.get('ens1f0np0');
    expect(node.property('ifname')?.string()).toBe('ens1f0np0');
    expect(Buffer.from(node.property('mac')?.value ?? []).toString('hex')).toBe(mac.replaceAll(':', '').toLowerCase());
    expect(node.property('mac')?.value).toHaveLength(bytes);
    expect(node.property('mtu')?.u32('little')).toBe(9000);
    expect(node.property('queues')?.u32('little')).toBe(20);
  }
});

it('an interface whose name is not fit for a node has an instance of a name that is', () => {
  const { instance } = new SmallHost(netdevsim as Driver, { ifname: 'vlan@5#ü' });
  expect(instance).toBe('vlan-5--');
  checkNodeName(instance);
});

it('names and addresses that no interface has are refused', () => {
  for (const options of [
    { ifname: '' },
    { ifname: 'a/b' },
    { ifname: '..' },
    { ifname: 'a23456789012345x' },
    { mac: '02:5a:3' },
  ]) {
    expect(() => netdevsim.options?.parse(options)).toThrow(/expected/);
  }
});
